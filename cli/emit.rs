//! The flags of commands whose answer becomes files.

use std::path::{Path, PathBuf};

use forerun_planner::emit::Names;
use forerun_planner::error::Error;

/// Where an answer goes as files.
#[derive(clap::Args)]
pub(crate) struct EmitArgs {
    /// Write the files that deploy the answer into this folder: values of llm-d's charts, the endpoint picker's
    /// configuration, routes, vLLM's arguments, and the scenario that was simulated.
    #[arg(long = "emit", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Name of the release in these files; without it the model's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Kubernetes namespace in these files.
    #[arg(long, value_name = "NAME", default_value_t = Names::default().namespace)]
    namespace: String,
    /// Write what OpenShift's restricted SCC needs, too.
    #[arg(long)]
    openshift: bool,
}

impl EmitArgs {
    /// Lets `emit` write the files where a folder is named, and says on stderr which were written.
    pub(crate) fn write(
        &self,
        emit: impl FnOnce(&Names, &Path) -> Result<Vec<PathBuf>, Error>,
    ) -> Result<(), Error> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let names =
            Names { name: self.name.clone(), namespace: self.namespace.clone(), openshift: self.openshift };
        for path in emit(&names, folder)? {
            eprintln!("wrote {}", path.display());
        }
        Ok(())
    }
}
