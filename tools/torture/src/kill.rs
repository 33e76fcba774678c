//! placeholder
use clap::Args as ClapArgs;
#[derive(ClapArgs)]
pub struct Args {}
#[derive(ClapArgs)]
pub struct ChildArgs {}
pub fn run(_: &Args) -> Result<(), String> {
    Ok(())
}
pub fn child(_: &ChildArgs) -> Result<(), String> {
    Ok(())
}
