//! The writers' lock: one writer a dataset, and it dies with its process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pheon::{PutOptions, Store, WriteError};

use crate::scratch::{Scratch, assert_numbered, assert_tidy, numbered, put};

const STORE_VARIABLE: &str = "PHEON_TEST_LOCKED_STORE";

/// Not a test of its own: what [`Holder`] runs in another process.
#[test]
#[ignore = "the child process of other tests"]
fn child_that_holds_the_lock() {
    let Some(path) = std::env::var_os(STORE_VARIABLE) else { return };
    let store = Store::open(path).unwrap();
    let batch = numbered(30, 0);
    let mut writer = store.writer("m", batch.schema(), PutOptions::map("k").threads(1)).unwrap();
    writer.write(&batch).unwrap();
    println!("\nholding");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Another process that is in the middle of writing dataset `m`.
struct Holder(Child);

impl Holder {
    fn start(scratch: &Scratch) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["locks::child_that_holds_the_lock", "--exact", "--ignored", "--nocapture"])
            .env(STORE_VARIABLE, scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "holding"), "the child did not get the lock");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hurried() -> PutOptions {
    PutOptions::map("k").threads(1).lock_timeout(Duration::from_millis(60))
}

#[test]
fn a_second_process_times_out_and_names_the_first() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(10, 7));
    let holder = Holder::start(&scratch);
    let began = Instant::now();
    let e = put(&scratch.store, "m", &numbered(5, 0), hurried()).unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(60));
    let WriteError::LockTimeout { dataset, holder_pid, waited_ms } = &e else { panic!("{e}") };
    assert_eq!((dataset.as_str(), *holder_pid), ("m", Some(holder.pid())));
    assert!(*waited_ms >= 60);
    assert!(e.to_string().contains(&format!("process {}", holder.pid())), "{e}");
    // Readers and other datasets are not concerned.
    assert_numbered(&scratch.store.map("m").unwrap(), 10, 7);
    put(&scratch.store, "other", &numbered(5, 0), hurried()).unwrap();
    // Killed in the middle, it leaves its temporary folder to the next writer.
    let dataset = scratch.path().join("m");
    assert!(crate::scratch::tree(&dataset).iter().any(|n| n.starts_with(".tmp-")));
    drop(holder);
    assert_numbered(&scratch.store.map("m").unwrap(), 10, 7);
    assert_eq!(put(&scratch.store, "m", &numbered(5, 0), hurried()).unwrap(), 2);
    assert_tidy(&dataset, 2, 2);
}

#[test]
fn gc_removes_what_a_killed_writer_left() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(10, 7));
    drop(Holder::start(&scratch));
    let report = scratch.store.gc("m", 1).unwrap();
    assert_eq!((report.leftovers_removed, report.versions_removed.len()), (1, 0));
    assert_tidy(&scratch.path().join("m"), 1, 1);
}

#[test]
fn a_second_thread_times_out_and_is_told_so() {
    let scratch = Scratch::new();
    let batch = numbered(5, 0);
    let writer = scratch.store.writer("m", batch.schema(), hurried()).unwrap();
    let e = put(&scratch.store, "m", &batch, hurried()).unwrap_err();
    let own = std::process::id();
    assert!(matches!(e, WriteError::LockTimeout { holder_pid: Some(pid), .. } if pid == own), "{e}");
    assert!(e.to_string().contains(&format!("this process, {own}")), "{e}");
    drop(writer);
    assert_eq!(put(&scratch.store, "m", &batch, hurried()).unwrap(), 1);
}

#[test]
fn waiting_can_be_cancelled_and_ends_when_the_lock_is_free() {
    let scratch = Scratch::new();
    let batch = numbered(5, 0);
    let writer = scratch.store.writer("m", batch.schema(), hurried()).unwrap();
    let patient = PutOptions::map("k").threads(1).lock_timeout(Duration::from_secs(50));
    let e = put(&scratch.store, "m", &batch, patient.clone().cancel(|| true)).unwrap_err();
    assert!(matches!(e, WriteError::Cancelled), "not the end of the time: {e}");
    let waiting = {
        let (store, batch) = (scratch.store.clone(), batch.clone());
        std::thread::spawn(move || put(&store, "m", &batch, patient).unwrap())
    };
    std::thread::sleep(Duration::from_millis(50));
    let mut writer = writer;
    writer.write(&batch).unwrap();
    assert_eq!(writer.commit().unwrap(), 1);
    assert_eq!(waiting.join().unwrap(), 2);
}

#[test]
fn a_dropped_dataset_stays_until_who_drops_it_is_done() {
    let scratch = Scratch::new();
    scratch.put("other", &numbered(3, 0));
    let holder = Holder::start(&scratch);
    // As the child would do it.
    let grave = scratch.path().join(".tmp-0123");
    std::fs::rename(scratch.path().join("m"), &grave).unwrap();
    scratch.store.gc("other", 1).unwrap();
    assert!(grave.exists(), "it was removed, and its name could still be given back");
    drop(holder);
    scratch.store.gc("other", 1).unwrap();
    assert!(!grave.exists());
    // One that was half removed already has no lock file, and nobody who could hold it.
    std::fs::create_dir_all(grave.join("v1")).unwrap();
    scratch.store.gc("other", 1).unwrap();
    assert!(!grave.exists());
}
