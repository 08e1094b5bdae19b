//! Groups of users, by name or number.

use std::path::Path;

use pheon_os::fs::real;

const GROUPS: &str = "/etc/group";
const GROUPS_BYTES_MAX: u64 = 64 << 20;

/// The id of a group, for clap. Names are looked for in `/etc/group`: asking a directory service (LDAP) takes the C
/// library, which has no safe interface here, and a number always works.
pub(crate) fn parse_group(text: &str) -> Result<u32, String> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let groups = real().read(Path::new(GROUPS), GROUPS_BYTES_MAX).map_err(|e| format!("{GROUPS}: {e}"))?;
    id_in(&String::from_utf8_lossy(&groups), text)
        .ok_or_else(|| format!("{GROUPS} has no group of this name; give its number (`getent group {text}` shows it)"))
}

/// The id of a group in the text of `/etc/group`: `name:password:id:members` a line.
fn id_in(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) { None } else { fields.nth(1)?.parse().ok() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_by_name_and_number() {
        let text = "root:x:0:\nstaff:x:50:ann,bob\nbad:x\n";
        assert_eq!(id_in(text, "staff"), Some(50));
        assert_eq!(id_in(text, "sta"), None);
        assert_eq!(id_in(text, "bad"), None);
        assert_eq!(parse_group("4711"), Ok(4711));
        assert_eq!(parse_group("root"), Ok(0));
        assert!(parse_group("no such group").unwrap_err().contains("getent"));
        assert!(parse_group("-1").is_err());
    }
}
