//! `pheon build`: input files to a published version.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use pheon::input::{self, Format, Input, InputOptions};
use pheon::{ChangeOptions, OnDuplicate, PartOptions, PutOptions, Resume, Store, WriteError};
use pheon_os::interrupt;
use serde_json::json;

use super::build_progress::Bar;
use super::write_store;
use crate::failure::{Failure, say};
use crate::listing::write_json;
use crate::size::{parse_seconds, parse_size, show_count, show_rate, show_size};

/// Arguments of `pheon build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store: a directory (made if missing), or shm://NAME for one in memory.
    store: PathBuf,
    /// The dataset: letters, digits, _ . -
    name: String,
    /// Input files, all with the same columns: .parquet .csv .tsv .ndjson .jsonl .arrow .feather
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The key column. Rows are sorted by it. With --table it may be left out, or be several, separated by commas.
    #[arg(
        long,
        value_name = "COL",
        value_delimiter = ',',
        required_unless_present_any = ["table", "append", "upsert"],
        conflicts_with_all = ["append", "upsert"]
    )]
    key: Vec<String>,
    /// Columns to keep beside the key, separated by commas. Default: all.
    #[arg(long, value_name = "COL", value_delimiter = ',')]
    value: Vec<String>,
    /// Build a table, whose keys may repeat, instead of a map.
    #[arg(long, conflicts_with_all = ["append", "upsert"])]
    table: bool,
    /// Add the rows to the dataset, which must be there, instead of replacing it. Its key stays.
    #[arg(long, conflicts_with = "upsert")]
    append: bool,
    /// Like --append, but rows that are there with a key of the files are replaced.
    #[arg(long)]
    upsert: bool,
    /// Keep what each file became: if this is interrupted, the same command goes on with the files that are left. A file
    /// that was changed since is read again.
    #[arg(long, conflicts_with_all = ["append", "upsert"])]
    resume: bool,
    /// What to do when a key occurs again in the files. Default: error; with --upsert: last.
    #[arg(long, value_enum, conflicts_with = "table")]
    on_duplicate: Option<Duplicate>,
    /// How much memory to use, such as 2GB or 512MiB. Default: a quarter of the machine's.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory_limit: Option<u64>,
    /// How many threads work. Default: one for each CPU.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Folder for data that does not fit in memory. Default: in the store. With --resume, what is kept of each file is in
    /// the store in any case.
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<PathBuf>,
    /// How long to wait for another writer of the dataset, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = parse_seconds)]
    lock_timeout: f64,
    /// The format of the files. Default: by extension.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<FileFormat>,
    /// Read a column as strings: identifiers that look like numbers. May be given several times or with commas.
    #[arg(long, value_name = "COL", value_delimiter = ',')]
    string: Vec<String>,
    /// Read a column as this type: str, bytes, int64, float64, date, timestamp[us,UTC], decimal(38,2)... May be given
    /// several times.
    #[arg(long = "type", value_name = "COL=TYPE", value_parser = parse_column_type)]
    types: Vec<(String, String)>,
    /// CSV: the character between fields, or "tab".
    #[arg(long, value_name = "CHAR", value_parser = parse_delimiter)]
    delimiter: Option<u8>,
    /// CSV: the first line is data; columns are named column_1, column_2...
    #[arg(long)]
    no_header: bool,
    /// CSV: quotes are characters like any other.
    #[arg(long)]
    no_quotes: bool,
    /// CSV: a field that means null. May be given several times. Default: the empty field.
    #[arg(long, value_name = "TEXT")]
    null: Vec<String>,
    /// CSV: how many rows decide about the types of columns, or "all".
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = parse_infer_rows)]
    infer_rows: InferRows,
    /// Say nothing unless it fails.
    #[arg(long, short)]
    quiet: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Duplicate {
    Error,
    First,
    Last,
}

#[derive(Clone, Copy, ValueEnum)]
enum FileFormat {
    Parquet,
    Csv,
    Tsv,
    Json,
    Arrow,
}

/// `None`: all.
type InferRows = std::option::Option<u64>;

fn parse_infer_rows(text: &str) -> Result<InferRows, String> {
    match text {
        "all" => Ok(None),
        _ => {
            text.parse().ok().filter(|n| *n > 0).map(Some).ok_or_else(|| "expected a number from 1, or \"all\"".into())
        }
    }
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [c] if c.is_ascii() => Ok(*c),
        _ => Err("expected one ASCII character, or \"tab\"".into()),
    }
}

fn parse_column_type(text: &str) -> Result<(String, String), String> {
    let (column, name) = text.split_once('=').ok_or("expected COLUMN=TYPE")?;
    input::parse_type(name)?;
    Ok((column.to_owned(), name.to_owned()))
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    if !args.table && args.key.len() > 1 {
        return Err(Failure::Usage("a map has one key column; choose one, or build a --table".into()));
    }
    let start = Instant::now();
    let input = input_options(args);
    // Files are looked at before anything is written.
    let source = match args.resume {
        true => Source::Each(files_of(args, &input)?),
        false => Source::All(input::open_all(&args.files, &input)?),
    };

    // From here on Ctrl-C stops the build in good order; before, nothing has been written. Another thread of a host
    // program may have taken Ctrl-C over already; then the host decides.
    let guard = interrupt::Guard::install().ok();
    let bar = (!args.quiet).then(Bar::on_terminal).flatten();
    let mut options = put_options(args);
    if guard.is_some() {
        options = options.cancel(interrupt::interrupted);
    }
    if let Some(bar) = &bar {
        options = options.progress(bar.callback());
    }

    let store = if args.append || args.upsert { write_store(&args.store)? } else { Store::open(&args.store)? };
    let result = match source {
        Source::Each(files) => {
            // Also the columns: one file that has changed may change the types that all have in common.
            let resume = Resume::default()
                .fact("the reading of files", format!("{input:?}"))
                .fact("the columns of the files", columns_of(&files));
            build_each(&store, args, files, options, resume)
        }
        Source::All(files) => {
            options.expected_rows = files.rows_estimate;
            let mut change = ChangeOptions::default();
            change.build = options;
            match (args.append, args.upsert) {
                (true, _) => store.append(&args.name, files.reader, change),
                (_, true) => store.upsert(&args.name, files.reader, change),
                _ => store.put(&args.name, files.reader, change.build),
            }
        }
    };
    if let Some(bar) = bar {
        bar.clear();
    }
    let version = result?;
    drop(guard);

    let info = store.table_at(&args.name, version)?.info();
    let (bytes, seconds) = (info.data_bytes + info.index_bytes, start.elapsed().as_secs_f64());
    if !args.quiet {
        say(&format!(
            "{}: version {version}, {} rows in {seconds:.1} s ({}), {}",
            info.name,
            show_count(info.rows),
            show_rate(info.rows as f64 / seconds.max(1e-9)),
            show_size(bytes)
        ));
    }
    if args.json {
        let result = json!({
            "name": info.name, "version": version, "rows": info.rows, "data_bytes": info.data_bytes,
            "index_bytes": info.index_bytes, "seconds": seconds,
        });
        write_json(out, &result)?;
    }
    Ok(())
}

/// What is built of.
enum Source {
    /// All files as one stream.
    All(Input),
    /// Each file as a part that is kept, with the part's name.
    Each(Vec<(String, Input)>),
}

/// The files, each with the name of its part: one that was changed since is another.
fn files_of(args: &Args, options: &InputOptions) -> Result<Vec<(String, Input)>, Failure> {
    let inputs = input::open_each(&args.files, options)?;
    let mut named: Vec<(String, Input)> = Vec::with_capacity(inputs.len());
    for (path, input) in args.files.iter().zip(inputs) {
        let identity = input::identity(path)?;
        let again = named.iter().filter(|(name, _)| name.starts_with(&identity)).count();
        let name = if again == 0 { identity } else { format!("{identity}, again {again}") };
        named.push((name, input));
    }
    Ok(named)
}

/// The columns that all files have in common.
fn columns_of(files: &[(String, Input)]) -> String {
    let schema = files.first().map(|(_, input)| input.reader.schema());
    let fields = schema.iter().flat_map(|schema| schema.fields());
    fields.map(|field| format!("{:?}: {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
}

/// Builds of files one after the other; those that an interrupted build has finished are not read again.
fn build_each(
    store: &Store,
    args: &Args,
    files: Vec<(String, Input)>,
    options: PutOptions,
    resume: Resume,
) -> Result<u64, WriteError> {
    let (progress, cancel) = (options.progress.clone(), options.cancel.clone());
    let mut writer = store.writer_of_parts(&args.name, options, Some(resume))?;
    let count = files.len();
    for (number, (name, file)) in files.into_iter().enumerate() {
        let part = writer.part(Some(&name))?;
        if let Some(rows) = part.finished_rows()? {
            if !args.quiet {
                let number = number + 1;
                say(&format!("file {number} of {count} was finished before: {name}, {} rows", show_count(rows)));
            }
            continue;
        }
        let mut options = PartOptions::default().alone();
        options.progress.clone_from(&progress);
        options.cancel.clone_from(&cancel);
        options.expected_rows = file.rows_estimate;
        let mut rows = part.writer(options)?;
        for batch in file.reader {
            rows.write(&batch.map_err(input::write_error)?)?;
        }
        // What is kept under the file's name must be what the file has.
        let path = &args.files[number];
        if !name.starts_with(&input::identity(path)?) {
            let problem = format!("{} was changed while it was read; run this again", path.display());
            return Err(WriteError::Options { problem });
        }
        rows.finish()?;
    }
    writer.commit()
}

fn input_options(args: &Args) -> InputOptions {
    let mut options = InputOptions::default();
    options.format = args.format.map(|format| match format {
        FileFormat::Parquet => Format::Parquet,
        FileFormat::Csv => Format::Csv,
        FileFormat::Tsv => Format::Tsv,
        FileFormat::Json => Format::Json,
        FileFormat::Arrow => Format::Arrow,
    });
    if !args.value.is_empty() {
        let values = args.value.iter().filter(|name| !args.key.contains(name));
        options.columns = Some(args.key.iter().chain(values).cloned().collect());
    }
    let strings = args.string.iter().map(|column| (column.clone(), "str".to_owned()));
    let types = strings.chain(args.types.iter().cloned());
    options.types =
        types.map(|(column, name)| (column, input::parse_type(&name).expect("checked when it was parsed"))).collect();
    options.delimiter = args.delimiter;
    options.header = !args.no_header;
    if args.no_quotes {
        options.quote = None;
    }
    if !args.null.is_empty() {
        options.null_values.clone_from(&args.null);
    }
    options.infer_rows = args.infer_rows;
    options
}

fn put_options(args: &Args) -> PutOptions {
    let on_duplicate = match args.on_duplicate {
        None if args.upsert => OnDuplicate::Last,
        None | Some(Duplicate::Error) => OnDuplicate::Error,
        Some(Duplicate::First) => OnDuplicate::First,
        Some(Duplicate::Last) => OnDuplicate::Last,
    };
    let mut options = PutOptions::table(args.key.clone()).unique(!args.table).on_duplicate(on_duplicate);
    options.memory_limit_bytes = args.memory_limit;
    options.threads = args.threads;
    options.spill_dir.clone_from(&args.spill_dir);
    options.lock_timeout = Some(Duration::from_secs_f64(args.lock_timeout));
    options
}
