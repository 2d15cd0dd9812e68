//! Output files: written beside their place and renamed into it, so that none is ever half-written.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::InputError;

/// A file that appears under its name only when it is complete.
#[derive(Debug)]
pub(crate) enum OutputFile {
    /// A regular file, to be renamed into place.
    Beside { file: NamedTempFile, path: PathBuf },
    /// A device or pipe: written as it is, never replaced.
    Special(File),
}

impl OutputFile {
    /// Starts a file at `path`.
    ///
    /// # Errors
    /// When its folder does not exist or cannot be written.
    pub(crate) fn create(path: &Path) -> Result<Self, InputError> {
        let wrong = |e: io::Error| InputError::new(format!("{}: cannot be written: {e}", path.display()));
        if path.is_dir() {
            return Err(InputError::new(format!("{}: is a folder: name a file in it", path.display())));
        }
        if path.exists() && !path.is_file() {
            return Ok(Self::Special(File::options().write(true).open(path).map_err(wrong)?));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            let why = format!("the folder {} does not exist: make it first", folder.display());
            return Err(InputError::new(format!("{}: cannot be written: {why}", path.display())));
        }
        let file = tempfile::Builder::new().prefix(".forerun-").tempfile_in(folder).map_err(wrong)?;
        Ok(Self::Beside { file, path: path.to_owned() })
    }

    /// Puts the complete file in its place.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(crate) fn finish(self) -> Result<(), InputError> {
        match self {
            Self::Beside { file, path } => {
                make_readable(file.as_file());
                let wrong = |e: tempfile::PersistError| {
                    InputError::new(format!("{}: cannot be written: {}", path.display(), e.error))
                };
                file.persist(&path).map(|_| ()).map_err(wrong)
            }
            Self::Special(_) => Ok(()),
        }
    }
}

/// Temporary files are private to their owner; an output file is as readable as others.
fn make_readable(file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // A file that stays private is still a good file.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Beside { file, .. } => file.write(bytes),
            Self::Special(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Beside { file, .. } => file.flush(),
            Self::Special(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "an abandoned file leaves nothing");
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_never_replaced() {
        use std::os::unix::fs::FileTypeExt as _;
        let path = Path::new("/dev/null");
        let mut file = OutputFile::create(path).unwrap();
        file.write_all(b"gone").unwrap();
        file.finish().unwrap();
        assert!(std::fs::metadata(path).unwrap().file_type().is_char_device());
    }
}
