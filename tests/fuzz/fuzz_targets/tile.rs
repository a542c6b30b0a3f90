#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code, reason = "one target of several")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = checks::check("tile", bytes);
});
