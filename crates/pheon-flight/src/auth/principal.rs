//! Who calls.

use std::sync::Arc;

use super::credentials::Rights;

/// Who calls, with his rights. Holds no secret.
#[derive(Clone, Debug)]
pub struct Principal {
    name: Arc<str>,
    /// `None`: everything.
    rights: Option<Arc<Rights>>,
}

impl Principal {
    /// A caller with these rights.
    pub fn new(name: &str, rights: Arc<Rights>) -> Self {
        Self { name: name.into(), rights: Some(rights) }
    }

    /// Everybody, with all rights: where no credentials are configured.
    pub fn everyone() -> Self {
        Self { name: "everyone".into(), rights: None }
    }

    /// Somebody without any right: who may call what needs none.
    pub fn nobody() -> Self {
        Self { name: "nobody".into(), rights: Some(Arc::new(Rights::default())) }
    }

    /// The name, for logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether he may read the dataset; of a live map, `live/NAME`.
    pub fn may_read(&self, dataset: &str) -> bool {
        self.rights.as_ref().is_none_or(|r| r.read.iter().any(|p| p.matches(dataset)))
    }

    /// Whether he may add, replace and delete rows of the dataset, and make it if it is not there. Does not include
    /// reading.
    pub fn may_write(&self, dataset: &str) -> bool {
        self.rights.as_ref().is_none_or(|r| r.write.iter().any(|p| p.matches(dataset)))
    }

    /// Whether he may verify, compact, collect, warm, roll back and drop the dataset. Does not include reading or writing.
    pub fn may_admin(&self, dataset: &str) -> bool {
        self.rights.as_ref().is_none_or(|r| r.admin.iter().any(|p| p.matches(dataset)))
    }

    /// Whether he may do anything at all with any dataset.
    pub fn has_any_right(&self) -> bool {
        self.rights.as_ref().is_none_or(|r| !r.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_do_not_include_each_other() {
        let rights = Rights::parse(&["prices"], &["in*"], &["old"]).unwrap();
        let alice = Principal::new("alice", Arc::new(rights));
        assert!(alice.may_read("prices") && !alice.may_write("prices") && !alice.may_admin("prices"));
        assert!(!alice.may_read("incoming") && alice.may_write("incoming") && !alice.may_admin("incoming"));
        assert!(!alice.may_read("old") && !alice.may_write("old") && alice.may_admin("old"));
        assert!(!alice.may_read("other") && alice.has_any_right());
    }

    #[test]
    fn everyone_and_nobody() {
        let everyone = Principal::everyone();
        assert!(everyone.may_read("x") && everyone.may_write("x") && everyone.may_admin("live/x"));
        let nobody = Principal::nobody();
        assert!(!nobody.may_read("x") && !nobody.may_write("x") && !nobody.may_admin("x") && !nobody.has_any_right());
    }
}
