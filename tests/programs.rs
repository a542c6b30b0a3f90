//! The programs that tests start: our own, built beside this test, and foreign ones.

use std::path::PathBuf;

/// One of our programs (`haar`, `haar-edge`, `haar-fog`, `haar-ledger`), from the profile this test was built with.
///
/// Cargo builds only the programs of a test's own package, so `tests/run` builds them all first.
pub fn own(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    // target/<profile>/deps/haar-<hash>
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a profile's folder");
    let program = profile.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.is_file(),
        "{} is not built: run tests/run, or first `cargo build --workspace --bins`",
        program.display()
    );
    program
}

/// A foreign program: the first of `names` on the PATH or in a place where Debian keeps daemons.
///
/// A peer that is missing fails its test with the line that installs it; it is never skipped.
pub fn foreign(names: &[&str], package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .collect();
    let mut candidates =
        names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    candidates.find(|program| program.is_file()).unwrap_or_else(|| {
        panic!("none of {names:?} is installed: run `sudo apt-get install {package}`, or tests/run")
    })
}

/// The MQTT broker that stands between devices and edge.
pub fn mosquitto() -> PathBuf {
    foreign(&["mosquitto"], "mosquitto")
}

/// libcoap's client; Debian and Ubuntu have it by TLS library, the plain one suffices.
pub fn coap_client() -> PathBuf {
    let names = ["coap-client-notls", "coap-client", "coap-client-openssl", "coap-client-gnutls"];
    foreign(&names, "libcoap3-bin")
}

#[test]
fn every_program_that_tests_start_is_there() {
    for name in ["haar", "haar-edge", "haar-fog", "haar-ledger"] {
        own(name);
    }
    mosquitto();
    coap_client();
}
