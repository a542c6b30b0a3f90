//! A whole edge over real sockets: mosquitto as broker, libcoap's client and coap-lite as devices, and a fog that
//! counts.

mod coap;
mod mqtt;
mod peers;

use crate::{CoapError, Config, StartError, start};
use haar_telemetry::{AdminError, Metrics};
use peers::{CountingFog, Site};
use tokio_util::sync::CancellationToken;

async fn try_start(config: Config) -> StartError {
    match start(config, Metrics::new("haar-edge").unwrap(), CancellationToken::new()).await {
        Ok(_) => panic!("the edge started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_or_missing_is_named() {
    let site = Site::new();
    let fog = CountingFog::holding(1_000);
    let serving = site.serve(&fog, None).await;
    let edge = site.start(site.with_coap(&serving)).await;

    let mut config = site.with_coap(&serving);
    config.coap.as_mut().unwrap().listen = edge.running.coap_addr.unwrap();
    let error = try_start(config).await;
    assert!(matches!(&error, StartError::Coap(CoapError::InUse(_))), "{error}");

    let mut config = site.with_coap(&serving);
    config.admin.listen = edge.running.admin_addr;
    let error = try_start(config).await;
    assert!(matches!(&error, StartError::Admin(AdminError::InUse(_))), "{error}");

    let error = try_start(site.with_coap(&serving)).await;
    let in_use = matches!(&error, StartError::Spool(haar_spool::OpenError::InUse { .. }));
    assert!(in_use, "{error}");

    let mut config = site.with_coap(&serving);
    config.pseudonym_key_file = "/nowhere/pseudonym.key".into();
    let error = try_start(config).await;
    assert!(error.to_string().contains("/nowhere/pseudonym.key"), "{error}");

    let mut config = site.with_coap(&serving);
    config.coap = None;
    assert!(matches!(try_start(config).await, StartError::NoSource));
    edge.stop().await;
    serving.stop().await;
}

#[test]
fn the_dependency_tree_has_no_dataflow_and_no_inference() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "-p", "haar-edge", "-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    for name in ["timely", "differential-dataflow", "candle-core", "haar-ledger", "haar-dataflow"] {
        assert!(!text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}");
    }
    assert!(text.contains("haar-spool "));
}
