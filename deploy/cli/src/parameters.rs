//! `haar parameters`: what a doctor sets for one patient.

use crate::failure::Failure;
use crate::fog::{Fog, text};
use clap::{Args as ClapArgs, Subcommand};
use haar_catalog::parameters::{Limit, Parameters};
use haar_ledger::Identity;
use haar_schema::{SignalId, Subject, Timestamp};
use haar_signals::news2::SpO2Scale;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

/// Set limits and scales for one patient: signed by a doctor, versioned, in force from a time on.
///
/// `haar model key` makes a key; the fog takes what keys of `parameters.trusted_keys` have signed. Each version replaces the one
/// before as a whole.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sign parameters and print the note.
    Sign(Sign),
    /// Hand a signed note to a fog; the answer names its leaf.
    Set(Set),
    /// All versions of a patient's parameters.
    Show(Show),
}

#[derive(Debug, ClapArgs)]
struct Sign {
    /// The patient's pseudonym, 32 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    subject: String,
    /// Which version of the patient's parameters it is: counts up from 1.
    #[arg(long, value_name = "N")]
    revision: u32,
    /// From when it holds, RFC 3339; default in one minute.
    #[arg(long, value_name = "TIME")]
    effective: Option<jiff::Timestamp>,
    /// NEWS2's scale of saturation.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    spo2_scale: u8,
    /// Limits of one signal in its own unit, such as `heart_rate=50..120`, `spo2=85..`; once for each signal.
    #[arg(long = "limit", value_name = "SIGNAL=LOW..HIGH")]
    limits: Vec<SignalLimit>,
    /// Why, for people.
    #[arg(long)]
    reason: String,
    /// The doctor's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Debug, ClapArgs)]
struct Set {
    /// The signed note.
    note: PathBuf,
    #[command(flatten)]
    fog: Fog,
}

#[derive(Debug, ClapArgs)]
struct Show {
    /// The patient's pseudonym, 32 hexadecimal digits.
    subject: String,
    #[command(flatten)]
    fog: Fog,
}

/// One signal's limits, as written.
#[derive(Clone, PartialEq, Debug)]
struct SignalLimit {
    signal: SignalId,
    low: Option<f64>,
    high: Option<f64>,
}

impl FromStr for SignalLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let syntax =
            || "write SIGNAL=LOW..HIGH, such as heart_rate=50..120 or spo2=85..".to_owned();
        let (name, range) = text.split_once('=').ok_or_else(syntax)?;
        let (low, high) = range.split_once("..").ok_or_else(syntax)?;
        let names = || SignalId::all().map(SignalId::name).collect::<Vec<_>>().join(", ");
        let signal = SignalId::by_name(name)
            .ok_or_else(|| format!("unknown signal {name}; there are {}", names()))?;
        let end = |end: &str| match end {
            "" => Ok(None),
            number => number.parse().map(Some).map_err(|_| format!("{number} is no number")),
        };
        let (low, high) = (end(low)?, end(high)?);
        if low.is_none() && high.is_none() {
            return Err(syntax());
        }
        Ok(Self { signal, low, high })
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Sign(args) => {
            let note = sign(&args)?;
            print!("{}", String::from_utf8_lossy(&note));
            Ok(())
        }
        Command::Set(args) => {
            let note = std::fs::read(&args.note).map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", args.note.display()))
            })?;
            let answer = args.fog.post("/v1/parameters", "text/plain", note)?;
            args.fog.show(&answer, |answer| {
                format!("version {} is leaf {}\n", answer["version"], answer["leaf"])
            });
            Ok(())
        }
        Command::Show(args) => {
            let answer = args.fog.get(&format!("/v1/parameters/{}", args.subject))?;
            args.fog.show(&answer, |answer| {
                let texts: Vec<&str> = answer.as_array().into_iter().flatten().map(text).collect();
                match texts.is_empty() {
                    true => "nothing is set for this patient; the defaults hold\n".to_owned(),
                    false => texts.join("\n"),
                }
            });
            Ok(())
        }
    }
}

fn sign(args: &Sign) -> Result<Vec<u8>, Failure> {
    let subject = Subject::from_hex(&args.subject)
        .ok_or_else(|| Failure::usage("--subject is a pseudonym, 32 hexadecimal digits"))?;
    let minute = std::time::Duration::from_secs(60);
    let effective = match args.effective {
        Some(effective) => effective,
        None => jiff::Timestamp::now() + minute,
    };
    let limits: BTreeMap<SignalId, Limit> = args
        .limits
        .iter()
        .map(|SignalLimit { signal, low, high }| {
            let unit = signal.definition().unit.to_owned();
            (*signal, Limit { unit, low: *low, high: *high, ..Limit::default() })
        })
        .collect();
    let parameters = Parameters {
        subject,
        version: args.revision,
        effective: Timestamp::from_micros(effective.as_microsecond()),
        spo2_scale: if args.spo2_scale == 2 { SpO2Scale::Two } else { SpO2Scale::One },
        limits,
        reason: args.reason.clone(),
    };
    parameters.check().map_err(Failure::usage)?;
    Ok(Identity::load(&args.key)?.sign(&parameters.text())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let limit: SignalLimit = "heart_rate=50..120.5".parse().unwrap();
        let wanted =
            SignalLimit { signal: SignalId::HEART_RATE, low: Some(50.0), high: Some(120.5) };
        assert_eq!(limit, wanted);
        let limit: SignalLimit = "spo2=85..".parse().unwrap();
        assert_eq!((limit.low, limit.high), (Some(85.0), None));
        for (text, wanted) in [
            ("spo2", "SIGNAL=LOW..HIGH"),
            ("spo3=1..", "there are"),
            ("spo2=x..", "x is no number"),
            ("spo2=..", "SIGNAL="),
        ] {
            let error = text.parse::<SignalLimit>().unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn what_is_signed_is_what_a_fog_takes() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("doctor.key");
        let doctor = Identity::generate("hospital.example/doctor", [5; 32]).unwrap();
        doctor.save_new(&key).unwrap();
        let args = Sign {
            subject: "07".repeat(16),
            revision: 1,
            effective: None,
            spo2_scale: 2,
            limits: vec!["spo2=85..".parse().unwrap()],
            reason: "chronic hypercapnia".into(),
            key,
        };
        let mut ward = haar_catalog::parameters::Ward::default();
        let note = sign(&args).unwrap();
        let taken = ward.take(&note, &[doctor.vkey().to_string()]).unwrap();
        assert_eq!(taken.spo2_scale, SpO2Scale::Two);
        let wrong = Sign { limits: vec!["spo2=85..20".parse().unwrap()], ..args };
        assert!(sign(&wrong).unwrap_err().to_string().contains("limits of spo2"));
    }
}
