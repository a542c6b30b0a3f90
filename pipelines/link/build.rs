//! Compiles the protocol with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/uplink.proto");
    let descriptors = protox::compile(["uplink.proto"], ["proto"])?;
    // `bytes::Bytes` for entries: they are slices of the frame that was received, not copies.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
