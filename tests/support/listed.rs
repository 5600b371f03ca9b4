//! The workloads of tests/workloads/list.tsv, for the tests and for `./setup bench workloads`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// From npm's registry; pinned, so that the same code runs everywhere.
const NPM_PACKAGES: [&str; 2] = ["express@4.21.2", "nunjucks@3.2.4"];

/// One line of the list, with its places filled in.
pub struct Workload {
    /// Its name, a word.
    pub name: String,
    prepare: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    needs_npm: bool,
}

/// Where npm's packages are put: below `build`, a directory of cargo's.
fn npm_folder(build: &Path) -> PathBuf {
    build.join("npm-packages")
}

/// Every workload; `tests` is the folder tests/, `build` a directory of cargo's.
pub fn list(tests: &Path, build: &Path) -> Result<Vec<Workload>, String> {
    let folder =
        std::fs::canonicalize(tests.join("workloads")).map_err(|e| format!("{}: {e}", tests.display()))?;
    let text = std::fs::read_to_string(folder.join("list.tsv")).map_err(|e| format!("list.tsv: {e}"))?;
    let fill = |text: &str| {
        let npm = npm_folder(build);
        text.replace("{w}", &folder.to_string_lossy()).replace("{n}", &npm.to_string_lossy())
    };
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let all: Result<Vec<Workload>, String> = lines
        .map(|line| {
            let parts: Vec<&str> = line.split('\t').collect();
            let [name, prepare, command] = parts.as_slice() else {
                return Err(format!(
                    "list.tsv: `{line}` is not name, preparation and command with tabs between"
                ));
            };
            Ok(Workload {
                name: (*name).to_owned(),
                prepare: (*prepare != "-").then(|| fill(prepare)),
                command: command.split(' ').map(fill).collect(),
                needs_npm: command.contains("{n}"),
            })
        })
        .collect();
    all.and_then(|all| if all.is_empty() { Err("list.tsv is empty".into()) } else { Ok(all) })
}

fn run(command: &mut Command, why: &str) -> Result<(), String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|e| format!("cannot start {command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    Err(format!("{why}:\n{out}{err}"))
}

impl Workload {
    /// Makes `dir` an empty directory with what the workload needs in it.
    pub fn prepare(&self, dir: &Path) -> Result<(), String> {
        if dir.exists() {
            std::fs::remove_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        std::fs::create_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let Some(line) = &self.prepare else { return Ok(()) };
        let mut shell = Command::new("sh");
        shell.args(["-ec", line]).current_dir(dir);
        run(&mut shell, &format!("{}: `{line}` fails on the host", self.name))
    }

    /// Installs npm's packages once below `build`, if this one needs them.
    pub fn install(&self, build: &Path) -> Result<(), String> {
        static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
        if !self.needs_npm {
            return Ok(());
        }
        let _held = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let dir = npm_folder(build);
        let (complete, wanted) = (dir.join("complete"), NPM_PACKAGES.join(" "));
        if std::fs::read_to_string(&complete).is_ok_and(|text| text == wanted) {
            return Ok(());
        }
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&dir);
        npm.args(NPM_PACKAGES);
        let why = "npm cannot install {wanted}: needed are npm and its registry (npm config get registry)";
        run(&mut npm, &why.replace("{wanted}", &wanted))?;
        std::fs::write(complete, wanted).map_err(|e| format!("{}: {e}", dir.display()))
    }
}
