//! Generated parts of documents: what stands between `<!-- COMMAND: begin -->` and `<!-- COMMAND: end -->`.

use std::io::Write as _;
use std::path::Path;

use crate::error::InputError;
use crate::output::OutputFile;

/// Puts `text` between the markers of `command` in a document.
///
/// # Errors
/// When the document has no such markers, or cannot be read or written.
pub(crate) fn replace(document: &Path, command: &str, text: &str) -> Result<(), InputError> {
    let wrong = |why: String| InputError::new(format!("{}: {why}", document.display()));
    let whole = std::fs::read_to_string(document).map_err(|e| wrong(e.to_string()))?;
    let [begin, end] = ["begin", "end"].map(|edge| format!("<!-- {command}: {edge} -->"));
    let place = whole.find(&begin).zip(whole.find(&end)).filter(|(begin, end)| begin < end);
    let (from, until) = place.ok_or_else(|| wrong(format!("has no lines {begin} and {end}")))?;
    write(document, &format!("{}\n{text}{}", &whole[..from + begin.len()], &whole[until..]))
}

/// Writes a whole file.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), InputError> {
    let mut file = OutputFile::create(path)?;
    file.write_all(text.as_bytes())
        .map_err(|e| InputError::new(format!("{}: cannot be written: {e}", path.display())))?;
    file.finish()
}
