//! Tells the program what it was built from: revision and compiler.

use std::path::Path;
use std::process::Command;

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A path that is not there would count as changed at every build.
    for path in [".git/HEAD", ".git/refs"]
        .iter()
        .filter(|path| Path::new(path).exists())
    {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=WEIR_REVISION");
    let given = std::env::var("WEIR_REVISION").ok();
    let revision = given.or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]));
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let rustc = output(&rustc, &["--version"]);
    println!(
        "cargo:rustc-env=WEIR_REVISION={}",
        revision.as_deref().unwrap_or("unknown")
    );
    println!(
        "cargo:rustc-env=WEIR_RUSTC={}",
        rustc.as_deref().unwrap_or("unknown")
    );
}
