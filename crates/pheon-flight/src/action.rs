//! Actions: administration, and transactions on live maps.

use std::time::Duration;

use arrow_flight::{Action, ActionType, CancelFlightInfoResult, CancelStatus};
use bytes::Bytes;
use pheon::{Info, MemoryScope, Retention, Store};
use pheon_live::LiveOptions;
use pheon_os::process;
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;

use crate::live;
use crate::put::changes;
use crate::service::Caller;
use crate::span::Span;
use crate::status;

/// What there is, and what it does.
const ACTIONS: [(&str, &str); 17] = [
    ("store", "facts about the store and the server"),
    ("datasets", "facts about each dataset"),
    ("info", "facts about a dataset"),
    ("versions", "the versions of a dataset"),
    ("refresh", "the number of the newest version"),
    ("locate", "where the rows of ranges of keys lie"),
    ("verify", "check every byte of a dataset"),
    ("compact", "merge a dataset's segments into one"),
    ("memory", "what a dataset costs on disk and in memory"),
    ("warm", "bring a dataset into memory"),
    ("rollback", "publish the content of an old version as the newest one"),
    ("gc", "remove old versions and what killed writers left"),
    ("drop", "remove a dataset with all its versions"),
    (LIVE, "operations on a live map, in one transaction"),
    ("live-create", "make a live map, or find it"),
    ("live-drop", "remove a live map"),
    (CANCEL, "cancel a query"),
];

/// Flight's own action to cancel what a FlightInfo tells of.
pub(crate) const CANCEL: &str = "CancelFlightInfo";

/// The name of an action that is one of ours rather than Flight SQL's.
pub(crate) fn known(name: &str) -> Option<&'static str> {
    ACTIONS.iter().find(|(known, _)| *known == name).map(|(known, _)| *known)
}

pub(crate) fn list() -> Vec<ActionType> {
    let of = |&(name, description): &(&str, &str)| ActionType { r#type: name.into(), description: description.into() };
    ACTIONS.iter().map(of).collect()
}

/// Members of an action's body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    dataset: Option<String>,
    version: Option<u64>,
    keep: Option<u64>,
    /// Seconds.
    max_age: Option<f64>,
    live: Option<String>,
    /// Whether a live map must be made; absent: only if it is not there.
    create: Option<bool>,
    max_entries: Option<u64>,
    max_bytes: Option<u64>,
    durable: Option<bool>,
    spans: Option<Vec<Span>>,
    /// Of `locate`: when the version was published; it must be this one.
    created: Option<u64>,
}

impl Body {
    fn parse(action: &Action) -> Result<Self, Status> {
        if action.body.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(&action.body)
            .map_err(|e| Status::invalid_argument(format!("malformed body of the action {:?}: {e}", action.r#type)))
    }

    fn age(&self) -> Result<Option<Duration>, Status> {
        let convert = |seconds| {
            let age = Duration::try_from_secs_f64(seconds);
            age.map_err(|e| Status::invalid_argument(format!("\"max_age\" is {seconds}: {e}")))
        };
        self.max_age.map(convert).transpose()
    }

    fn dataset(&self, action: &Action) -> Result<&str, Status> {
        self.dataset.as_deref().ok_or_else(|| lacks(action, "dataset"))
    }
}

fn lacks(action: &Action, member: &str) -> Status {
    Status::invalid_argument(format!("the action {:?} needs a JSON object with {member:?}", action.r#type))
}

/// Facts as `pheon info --json` has them.
pub(crate) fn facts(info: &Info) -> Value {
    let per_key = (info.index_keys > 0).then(|| info.index_bytes as f64 / info.index_keys as f64);
    let column = |field: &arrow_schema::FieldRef| {
        json!({
            "name": field.name(), "type": field.data_type().to_string(), "nullable": field.is_nullable(),
            "key": info.key.contains(field.name()),
        })
    };
    json!({
        "name": info.name, "kind": if info.unique { "map" } else { "table" }, "version": info.version,
        "created_unix_ms": info.created_unix_ms, "origin": info.origin, "rows": info.rows, "key": info.key,
        "columns": info.schema.fields().iter().map(column).collect::<Vec<_>>(), "segments": info.segments,
        "hidden_rows": info.hidden_rows, "data_bytes": info.data_bytes, "index_bytes": info.index_bytes,
        "index_keys": info.index_keys, "index_bytes_per_key": per_key, "access": info.access.to_string(),
        "path": info.path.to_string_lossy(),
    })
}

/// The action of which `live_action` knows everything.
pub(crate) const LIVE: &str = "live";

/// Whether an action may take long: it reads or writes a whole dataset, or waits for a lock.
pub(crate) fn takes_long(name: &str) -> bool {
    matches!(name, "verify" | "compact" | "memory" | "warm" | "rollback" | "gc" | "drop" | "live-create" | "live-drop")
}

/// Does an action but `live`; may block. `memory_bytes`: what it may take to build files.
pub(crate) fn run(
    caller: &Caller,
    store: &Store,
    sql: bool,
    memory_bytes: u64,
    action: &Action,
) -> Result<Vec<Bytes>, Status> {
    if action.r#type == CANCEL {
        // Nothing runs between GetFlightInfo and DoGet of a scan.
        let result = CancelFlightInfoResult::new(CancelStatus::NotCancellable);
        return Ok(vec![result.encode_to_vec().into()]);
    }
    let results = json_results(caller, store, sql, memory_bytes, action)?;
    Ok(results.into_iter().map(|value| value.to_string().into()).collect())
}

fn json_results(
    caller: &Caller,
    store: &Store,
    sql: bool,
    memory_bytes: u64,
    action: &Action,
) -> Result<Vec<Value>, Status> {
    let body = Body::parse(action)?;
    let of_read = |e| status::of_read(&e);
    let of_write = |e| status::of_write(&e);
    match action.r#type.as_str() {
        "store" => {
            let boot = process::boot_id().map_err(|e| Status::internal(format!("read the boot's id: {e}")))?;
            return Ok(vec![json!({
                "uuid": store.uuid(), "path": store.path().to_string_lossy(),
                "host": boot.map(|byte| format!("{byte:02x}")).concat(),
                "version": env!("CARGO_PKG_VERSION"), "sql": sql,
            })]);
        }
        "datasets" => {
            let names = store.datasets().map_err(of_read)?;
            let readable = names.iter().filter(|name| caller.may_read(name));
            // One that was dropped since is left out.
            return Ok(readable.filter_map(|name| store.table(name).ok()).map(|table| facts(&table.info())).collect());
        }
        "live-create" => {
            let name = body.live.as_deref().ok_or_else(|| lacks(action, "live"))?;
            caller.check_write(&live::right(name))?;
            let options = LiveOptions {
                max_entries: body.max_entries.unwrap_or(0),
                max_age: body.age()?.unwrap_or(Duration::ZERO),
                max_bytes: body.max_bytes.unwrap_or(0),
                durable: body.durable.unwrap_or(false),
            };
            return Ok(vec![json!({ "made": live::make(store, name, body.create, &options)? })]);
        }
        "live-drop" => {
            let name = body.live.as_deref().ok_or_else(|| lacks(action, "live"))?;
            caller.check_admin(&live::right(name))?;
            live::attach(store, name)?.unlink().map_err(|e| status::of_live(&e))?;
            return Ok(vec![json!({})]);
        }
        _ => {}
    }
    let name = body.dataset(action)?;
    match action.r#type.as_str() {
        "info" | "versions" | "refresh" | "locate" | "memory" => caller.check_read(name)?,
        // It reads every byte, and changes none: also where nothing may be changed.
        "verify" => caller.check_admin_right(name)?,
        _ => caller.check_admin(name)?,
    }
    Ok(match action.r#type.as_str() {
        "info" => {
            let table = crate::scan::open(store, name)?;
            let mut facts = facts(&table.info());
            facts["distinct_keys"] = json!(!table.key().is_empty() && table.is_unique());
            facts["store"] = json!(store.uuid());
            vec![facts]
        }
        "locate" => {
            let table = crate::scan::open(store, name)?;
            crate::scan::check_created(body.created, || table.info())?;
            let spans = body.spans.as_deref().ok_or_else(|| lacks(action, "spans"))?;
            let rows = spans.iter().map(|span| span.locate(&table)).collect::<Result<Vec<_>, _>>()?;
            vec![json!({"version": table.version(), "rows": rows})]
        }
        "versions" => {
            let versions = store.versions(name).map_err(of_read)?;
            let of = |v: &pheon::VersionInfo| {
                json!({
                    "version": v.version, "created_unix_ms": v.created_unix_ms, "rows": v.rows, "bytes": v.bytes,
                    "segments": v.segments, "origin": v.origin,
                })
            };
            versions.iter().map(of).collect()
        }
        "refresh" => {
            let newest = store.table(name).map_err(of_read)?.info();
            vec![json!({"version": newest.version, "created_unix_ms": newest.created_unix_ms})]
        }
        "verify" => {
            let report = store.verify(name).map_err(of_read)?;
            vec![json!({
                "name": name, "ok": report.is_ok(), "version": report.version, "rows": report.rows, "keys": report.keys,
                "bytes": report.bytes, "problem_count": report.problem_count, "problems": report.problems,
            })]
        }
        "compact" => vec![json!({"version": store.compact(name, changes(memory_bytes)).map_err(of_write)?})],
        "memory" => {
            let names = [name.to_owned()];
            let reports = store.memory_of(&names, MemoryScope::AllProcesses).map_err(of_read)?;
            let m = match reports.first() {
                Some(report) => report,
                None => return Err(store.table(name).map_or_else(of_read, |_| Status::not_found("it is gone"))),
            };
            vec![json!({
                "name": m.name, "version": m.version, "file_bytes": m.file_bytes, "on_disk_bytes": m.on_disk_bytes,
                "resident_bytes": m.resident_bytes, "mapped_by_processes": m.mapped_by_processes,
                "pss_bytes": m.process_pss_bytes, "private_bytes": m.process_private_bytes,
                "page_table_bytes": m.process_page_table_bytes,
                "page_table_total_bytes": m.process_page_table_total_bytes, "huge_bytes": m.huge_bytes,
                "access": m.access.to_string(), "older_versions": m.older_versions,
                "older_on_disk_bytes": m.older_on_disk_bytes,
            })]
        }
        "warm" => {
            let r = store.warm(name).map_err(of_read)?;
            vec![json!({
                "name": name, "version": r.version, "file_bytes": r.file_bytes,
                "resident_before_bytes": r.resident_before_bytes, "resident_bytes": r.resident_bytes,
                "huge_bytes": r.huge_bytes, "huge_refusal": r.huge_refusal, "access": r.access.to_string(),
                "seconds": r.elapsed.as_secs_f64(),
            })]
        }
        "rollback" => {
            let version = body.version.ok_or_else(|| lacks(action, "version"))?;
            vec![json!({"version": store.rollback(name, version).map_err(of_write)?})]
        }
        "gc" => {
            let mut retention = Retention::newest(body.keep.ok_or_else(|| lacks(action, "keep"))?);
            if let Some(age) = body.age()? {
                retention = retention.max_age(age);
            }
            let r = store.gc_with(name, retention).map_err(of_write)?;
            vec![json!({
                "name": name, "versions_removed": r.versions_removed, "segments_removed": r.segments_removed,
                "leftovers_removed": r.leftovers_removed, "bytes_freed": r.bytes_freed,
            })]
        }
        "drop" => {
            store.drop_dataset(name).map_err(of_write)?;
            vec![json!({})]
        }
        other => return Err(Status::invalid_argument(format!("there is no action {other:?}: see ListActions"))),
    })
}
