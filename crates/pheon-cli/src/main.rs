//! The `pheon` command.

fn main() {
    std::process::exit(pheon_cli::run(std::env::args_os()));
}
