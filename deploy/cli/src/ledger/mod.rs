//! `haar ledger`: the consortium log, for people of its members.

mod access;
mod custody;
mod genesis;
mod govern;
mod server;
mod show;

use crate::failure::Failure;
use clap::{Args as ClapArgs, Subcommand};

/// Found a consortium, look at its log, propose and vote.
///
/// Keys are made by `haar-ledger key`, servers run by `haar-ledger serve`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the first entry of a log from a description, signed by one founder.
    Genesis(genesis::Genesis),
    /// Sign an entry that others have signed, so that it has one more signature.
    Sign(genesis::Sign),
    /// Hand an entry to the log and wait until it is witnessed.
    Submit(govern::Submit),
    /// What the log's entries come to: operator, quorums, open proposals.
    Show(show::Show),
    /// Who the members are.
    Members(show::Members),
    /// Whose cosignatures make a checkpoint count, as a C2SP tlog-policy file.
    Policy(show::Policy),
    /// The keys that bore a name, and how the device did, if it is one's.
    Keys(show::Keys),
    /// One entry, as it is in the log.
    Entry(show::Entry),
    /// The proof of one entry, a C2SP tlog-proof, checked against a policy file.
    Prove(show::Prove),
    /// What somebody attempted, with its proof.
    Evidence(show::Evidence),
    /// Register or revoke the key of a site, an edge, a device or a person.
    Key(govern::Key),
    /// Numbered items on their way from member to member.
    Custody(custody::Custody),
    /// Ask the members to agree to a change.
    Propose(govern::Propose),
    /// Vote on a proposal.
    Vote(govern::Vote),
    /// As a patient: let somebody read something, for a purpose and a time.
    Grant(access::Grant),
    /// As a patient: take a grant back.
    Revoke(access::Revoke),
    /// As a patient: who asked for what, and what was decided (FHIR AuditEvent).
    Audit(access::Audit),
    /// Read a patient's records, as whoever the key belongs to.
    Read(access::Read),
    /// The name under which a patient's key is made and registered.
    PatientKeyName(access::PatientKeyName),
}

/// Runs a subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Genesis(args) => genesis::genesis(&args),
        Command::Sign(args) => genesis::sign(&args),
        Command::Submit(args) => govern::submit(&args),
        Command::Show(args) => show::show(&args),
        Command::Members(args) => show::members(&args),
        Command::Policy(args) => show::policy(&args),
        Command::Keys(args) => show::keys(&args),
        Command::Entry(args) => show::entry(&args),
        Command::Prove(args) => show::prove(&args),
        Command::Evidence(args) => show::evidence(&args),
        Command::Key(args) => govern::key(&args),
        Command::Custody(args) => custody::custody(&args),
        Command::Propose(args) => govern::propose(&args),
        Command::Vote(args) => govern::vote(&args),
        Command::Grant(args) => access::grant(&args),
        Command::Revoke(args) => access::revoke(&args),
        Command::Audit(args) => access::audit(&args),
        Command::Read(args) => access::read(&args),
        Command::PatientKeyName(args) => access::patient_key_name(&args),
    }
}
