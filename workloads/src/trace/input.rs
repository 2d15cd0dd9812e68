//! Opening a trace: compression by magic bytes, and lines and CSV rows of bounded length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use csv::ByteRecord;

use super::cell::shown;
use crate::error::WorkloadError;

/// The longest line (or CSV row) that is read: 8 MiB, about a million block hashes.
pub(super) const LINE_MAX: usize = 8 << 20;

/// Text that may come from a decompressor.
pub(super) type Text = Box<dyn Read + Send>;

const CHUNK: usize = 64 << 10;
const BOM: &[u8] = &[0xef, 0xbb, 0xbf];

/// Opens `path` as text: decompressed, and without a byte order mark.
pub(super) fn open_text(path: &Path) -> Result<Text, WorkloadError> {
    let kind = std::fs::metadata(path).map_err(|error| WorkloadError::io(path, error.to_string()))?;
    if kind.is_dir() {
        return Err(WorkloadError::io(path, "is a directory; give the trace file itself"));
    }
    if !kind.is_file() {
        let what = "is not a regular file; a trace is read more than once, so save it to a file first";
        return Err(WorkloadError::io(path, what));
    }
    let file = File::open(path).map_err(|error| WorkloadError::io(path, error.to_string()))?;
    let mut text = decompressed(path, BufReader::with_capacity(CHUNK, file))?;

    let mut head = Vec::with_capacity(BOM.len());
    let taken = text.by_ref().take(BOM.len() as u64).read_to_end(&mut head);
    taken.map_err(|error| unreadable(path, &error))?;
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        let what = "is UTF-16 text; save it as UTF-8";
        return Err(WorkloadError::io(path, what));
    }
    if head == BOM {
        head.clear();
    }
    Ok(Box::new(io::Cursor::new(head).chain(text)))
}

fn decompressed(path: &Path, mut raw: BufReader<File>) -> Result<Text, WorkloadError> {
    let magic = raw.fill_buf().map_err(|error| unreadable(path, &error))?;
    let unknown = |name: &str| {
        let what = format!("is {name} data; decompress it first, or use gzip or zstd");
        Err(WorkloadError::io(path, what))
    };
    if magic.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(raw)))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::with_buffer(raw);
        Ok(Box::new(decoder.map_err(|error| unreadable(path, &error))?))
    } else if magic.starts_with(b"PK\x03\x04") {
        unknown("zip")
    } else if magic.starts_with(b"\xfd7zXZ\0") {
        unknown("xz")
    } else if magic.starts_with(b"BZh") {
        unknown("bzip2")
    } else if magic.starts_with(b"PAR1") {
        unknown("Parquet")
    } else {
        Ok(Box::new(raw))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> WorkloadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            WorkloadError::io(path, "the compressed data ends early: the file is truncated; copy it again")
        }
        _ => WorkloadError::io(path, format!("cannot be read: {error}")),
    }
}

fn too_long(path: &Path, line: u64) -> WorkloadError {
    let what = "a line longer than 8 MiB (or a quote that is never closed): not a row of a trace";
    WorkloadError::row(path, line, what)
}

/// The error of a file that holds no row.
pub(super) fn no_rows(path: &Path) -> WorkloadError {
    WorkloadError::io(path, "holds no requests: a trace has at least one row of data")
}

/// The lines of a file, blank ones left out, in a buffer that is used again.
pub(super) struct Lines {
    path: PathBuf,
    text: BufReader<Text>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, WorkloadError> {
        Ok(Self {
            path: path.to_owned(),
            text: BufReader::with_capacity(CHUNK, open_text(path)?),
            line: Vec::new(),
            number: 0,
        })
    }

    /// Goes to the next line that is not blank; `false` at the end of the file.
    pub(super) fn advance(&mut self) -> Result<bool, WorkloadError> {
        loop {
            self.line.clear();
            let mut bounded = self.text.by_ref().take(LINE_MAX as u64 + 1);
            let read =
                bounded.read_until(b'\n', &mut self.line).map_err(|error| unreadable(&self.path, &error))?;
            if read == 0 {
                return Ok(false);
            }
            self.number += 1;
            if read > LINE_MAX {
                return Err(too_long(&self.path, self.number));
            }
            if !self.line().is_empty() {
                return Ok(true);
            }
        }
    }

    /// The current line, without the white space around it.
    pub(super) fn line(&self) -> &[u8] {
        self.line.trim_ascii()
    }

    /// Number of the current line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// An error in the current line.
    pub(super) fn error(&self, what: impl Into<String>) -> WorkloadError {
        WorkloadError::row(&self.path, self.number, what)
    }
}

/// A reader that fails once its allowance is spent. The CSV parser would otherwise buffer the whole file
/// behind one open quote.
struct Capped {
    text: Text,
    left: usize,
    /// What was read last, and how many bytes in all.
    latest: Vec<u8>,
    total: u64,
}

impl Capped {
    fn new(text: Text) -> Self {
        Self { text, left: 0, latest: Vec::new(), total: 0 }
    }

    /// The byte in front of `place`, which is in what was read last.
    fn before(&self, place: u64) -> Option<u8> {
        let start = self.total - self.latest.len() as u64;
        let index = place.checked_sub(start + 1)?;
        self.latest.get(index as usize).copied()
    }
}

impl Read for Capped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let wanted = buffer.len().min(self.left);
        let read = self.text.read(&mut buffer[..wanted])?;
        self.left -= read;
        if read > 0 {
            self.latest.clear();
            self.latest.extend_from_slice(&buffer[..read]);
            self.total += read as u64;
        }
        Ok(read)
    }
}

/// The rows of a CSV file with a header.
pub(super) struct CsvRows {
    path: PathBuf,
    reader: csv::Reader<Capped>,
    record: ByteRecord,
    header: Vec<String>,
    line: u64,
}

impl CsvRows {
    /// Opens `path` and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, WorkloadError> {
        let text = open_text(path)?;
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(CHUNK)
            .from_reader(Capped::new(text));
        let mut rows =
            Self { path: path.to_owned(), reader, record: ByteRecord::new(), header: Vec::new(), line: 1 };
        if !rows.read()? {
            return Err(no_rows(path));
        }
        for column in 0..rows.record.len() {
            let name = rows.field(column)?.to_owned();
            if rows.header.contains(&name) {
                let what = format!("the header names the column {} twice", shown(&name));
                return Err(rows.error(what));
            }
            rows.header.push(name);
        }
        Ok(rows)
    }

    /// The column names.
    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// Goes to the next row; `false` at the end of the file.
    pub(super) fn advance(&mut self) -> Result<bool, WorkloadError> {
        if !self.read()? {
            return Ok(false);
        }
        let (found, wanted) = (self.record.len(), self.header.len());
        if found != wanted {
            return Err(self.error(format!(
                "{found} fields where the header has {wanted}; put fields that contain commas in double quotes"
            )));
        }
        Ok(true)
    }

    fn read(&mut self) -> Result<bool, WorkloadError> {
        self.reader.get_mut().left = LINE_MAX;
        let ahead = self.reader.position().line();
        let read = self.reader.read_byte_record(&mut self.record);
        let more = read.map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                too_long(&self.path, ahead)
            }
            csv::ErrorKind::Io(error) => unreadable(&self.path, &error),
            other => WorkloadError::row(&self.path, ahead, format!("not CSV: {other:?}")),
        })?;
        self.line = self.first_line();
        Ok(more)
    }

    /// The line on which the row just read begins. The parser's own answer is the line on which it began to
    /// look: blank lines, and the line feed of a CRLF, may lie between.
    fn first_line(&self) -> u64 {
        let end = self.reader.position();
        let fed = self.reader.get_ref().before(end.byte()) == Some(b'\n');
        let within = self.record.as_slice().iter().filter(|&&byte| byte == b'\n').count();
        end.line().saturating_sub(u64::from(fed) + within as u64)
    }

    /// The text of field `column` of the current row, without the white space around it.
    pub(super) fn field(&self, column: usize) -> Result<&str, WorkloadError> {
        let bytes = self.record.get(column).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|_| {
            self.error(format!("field {} is not UTF-8 text; convert the file to UTF-8", column + 1))
        })?;
        if text.contains('\0') {
            return Err(self.error(format!("field {} contains a NUL byte", column + 1)));
        }
        Ok(text.trim())
    }

    /// Line on which the current row starts, from 1.
    pub(super) fn number(&self) -> u64 {
        self.line
    }

    /// An error in the current row.
    pub(super) fn error(&self, what: impl Into<String>) -> WorkloadError {
        WorkloadError::row(&self.path, self.line, what)
    }
}
