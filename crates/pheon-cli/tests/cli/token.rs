//! `pheon token`.

use std::process::Command;

fn token(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pheon")).arg("token").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_entry_knows_the_secret_and_does_not_have_it() {
    let (code, entry, said) =
        token(&["alice", "--read", "prices", "--read", "fx*", "--write", "live/c", "--expires", "2027-01-01"]);
    assert_eq!(code, Some(0), "{said}");
    let secret = said.trim().rsplit(' ').next().unwrap();
    assert!(secret.starts_with("pheon_") && !entry.contains(secret));
    let known = pheon_flight::auth::Credentials::parse(&entry).unwrap();
    assert_eq!(known.tokens[0].hash, pheon_flight::auth::SecretHash::of(secret));
    assert_eq!(known.tokens[0].rights.read.len(), 2);
    assert_ne!(token(&["alice", "--read", "*"]).2, token(&["alice", "--read", "*"]).2);
}

#[test]
fn what_makes_no_token() {
    for arguments in
        [&["alice"][..], &["alice", "--read", "a/b"], &["", "--read", "*"], &["a", "--read", "*", "--expires", "soon"]]
    {
        let (code, entry, said) = token(arguments);
        assert_eq!((code, entry.as_str()), (Some(2), ""), "{arguments:?}: {said}");
    }
}
