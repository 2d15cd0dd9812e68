//! Running the `forerun` command in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Address space of the command, in KiB: what is bounded stays far below.
#[cfg(unix)]
const ADDRESS_SPACE_KIB: u64 = 2_000_000;
/// A run that takes longer hangs. A safety net, not a claim about speed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that is removed at the end, in which the command runs.
pub(crate) struct Folder(TempDir);

/// What a run of the command left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// A folder with one file, `scenario.yaml`.
    pub(crate) fn with_scenario(text: &str) -> Self {
        let folder = Self::new();
        folder.write("scenario.yaml", text);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("a writable folder");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Names of the files in the folder, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a readable folder");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.expect("a readable folder").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    /// Runs `forerun` with these arguments, stdin closed, to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        let mut child = self.spawn(args);
        let stdout = drain(child.stdout.take().expect("piped"));
        let stderr = drain(child.stderr.take().expect("piped"));
        let code = wait(&mut child, args);
        let text = |reader: JoinHandle<Vec<u8>>| {
            String::from_utf8(reader.join().expect("a reader that ends")).expect("output is UTF-8")
        };
        Run { code, stdout: text(stdout), stderr: text(stderr) }
    }

    /// Starts `forerun` with these arguments, bounded in memory, its outputs piped.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = bounded();
        command.args(args).current_dir(self.0.path());
        command.env_remove("RUST_BACKTRACE").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the command starts")
    }

    /// The summary of `forerun simulate` with these arguments.
    pub(crate) fn summary(&self, args: &[&str]) -> Value {
        let run = self.run(&[&["simulate"], args, &["--format", "json"]].concat());
        assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
        serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", run.stdout))
    }

    /// The lines of `forerun simulate --outcomes` with these arguments.
    pub(crate) fn outcomes(&self, args: &[&str]) -> Vec<Outcome> {
        self.summary(&[args, &["--outcomes", "outcomes.csv"]].concat());
        table(&self.read("outcomes.csv"))
    }

    /// The lines of `forerun simulate scenario.yaml --outcomes`.
    pub(crate) fn scenario_outcomes(&self) -> Vec<Outcome> {
        self.outcomes(&["scenario.yaml"])
    }
}

/// `forerun`, where the system allows it with a bound on its memory.
fn bounded() -> Command {
    let program = env!("CARGO_BIN_EXE_forerun");
    #[cfg(unix)]
    {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$0\" \"$@\""), program]);
        shell
    }
    #[cfg(not(unix))]
    Command::new(program)
}

/// Reads to the end on the side, so that a full pipe never blocks the command.
fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a readable pipe");
        bytes
    })
}

/// The exit code; a command that hangs is killed and fails the test.
pub(crate) fn wait(child: &mut Child, args: &[&str]) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return status.code();
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
            panic!("forerun {args:?} did not end");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// One line of an outcomes file, by column.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome(pub(crate) BTreeMap<String, String>);

impl Outcome {
    pub(crate) fn text(&self, column: &str) -> &str {
        self.0.get(column).unwrap_or_else(|| panic!("no column {column}"))
    }

    /// A decimal as a whole number of its last places: seconds or milliseconds in nanoseconds.
    pub(crate) fn nanos(&self, column: &str) -> i64 {
        let text = self.text(column);
        let digits: String = text.chars().filter(|c| *c != '.').collect();
        digits.parse().unwrap_or_else(|_| panic!("{column} is {text:?}"))
    }
}

/// The lines of a CSV file without quoted fields.
pub(crate) fn table(csv: &str) -> Vec<Outcome> {
    assert!(!csv.contains('"'), "no test here needs quoted fields");
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let row = |line: &str| {
        let cells = line.split(',').map(str::to_owned);
        Outcome(header.iter().map(|name| (*name).to_owned()).zip(cells).collect())
    };
    lines.map(row).collect()
}

/// Checks `value` against the part `schema` of the JSON Schema `root`: types, required and known properties,
/// bounds and alternatives.
pub(crate) fn conforms(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{why}: {value} against {schema}"));
    if schema == &Value::Bool(false) {
        return wrong("not expected");
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').expect("references stay within the schema");
        conforms(root, root.pointer(pointer).expect("a defined reference"), value)?;
    }
    let is = |kind: &Value| match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    };
    match &schema["type"] {
        Value::Null => {}
        Value::Array(kinds) if kinds.iter().any(is) => {}
        kind if is(kind) => {}
        _ => return wrong("wrong type"),
    }
    let number = value.as_f64().unwrap_or(0.0);
    if schema["minimum"].as_f64().is_some_and(|least| number < least)
        || schema["maximum"].as_f64().is_some_and(|most| number > most)
    {
        return wrong("out of bounds");
    }
    if schema.get("const").is_some_and(|only| only != value)
        || schema["enum"].as_array().is_some_and(|all| !all.contains(value))
    {
        return wrong("another value");
    }
    for (key, exact) in [("anyOf", false), ("oneOf", true)] {
        let Some(choices) = schema[key].as_array() else { continue };
        match choices.iter().filter(|choice| conforms(root, choice, value).is_ok()).count() {
            0 => return wrong("no alternative fits"),
            1 => {}
            _ if exact => return wrong("several alternatives fit"),
            _ => {}
        }
    }
    if let Value::Object(map) = value {
        let required = schema["required"].as_array().into_iter().flatten();
        if let Some(lacking) = required.filter_map(Value::as_str).find(|name| !map.contains_key(*name)) {
            return wrong(&format!("without `{lacking}`"));
        }
        for (name, value) in map {
            match schema["properties"].get(name).or(schema.get("additionalProperties")) {
                Some(schema) if schema != &Value::Bool(true) => {
                    conforms(root, schema, value).map_err(|why| format!("{name}: {why}"))?;
                }
                _ => {}
            }
        }
    }
    for value in value.as_array().into_iter().flatten() {
        if let Some(items) = schema.get("items") {
            conforms(root, items, value)?;
        }
    }
    Ok(())
}
