//! What ARCHITECTURE.md promises of the code and a program can check.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const LONGEST_FILE: usize = 600;
/// An architecture is a short file that states what is particular to it.
const LONGEST_ARCHITECTURE: usize = 200;
/// Percent of an architecture's lines that may stand in another's.
const MOST_SHARED: usize = 40;
/// Shorter lines (brackets, `Ok(Self {`) say nothing.
const LINE_WITH_MEANING: usize = 8;
/// Lines above an unsafe block in which its reason is looked for: one reason may stand above a statement of several lines.
const REASON_ABOVE: usize = 12;

/// Files with unsafe code. A new one is a decision, so it is written down here.
const UNSAFE: &[&str] = &[
    "backend-api/src/conformance/tests/double.rs",
    "backend-api/src/features.rs",
    "backend-api/src/measure.rs",
    "backend-api/src/plugin.rs",
    "backend-cpu/src/device.rs",
    "backend-cpu/src/lanes.rs",
    "backend-cpu/src/lanes/x86.rs",
    "backend-cpu/src/measure.rs",
    "backend-cpu/src/memory.rs",
    "backend-cpu/src/ops/attention/few.rs",
    "backend-cpu/src/ops/attention/mod.rs",
    "backend-cpu/src/ops/attention/tile.rs",
    "backend-cpu/src/ops/attention/vnni.rs",
    "backend-cpu/src/ops/elementwise.rs",
    "backend-cpu/src/ops/mix.rs",
    "backend-cpu/src/ops/norm.rs",
    "backend-cpu/src/ops/rope.rs",
    "backend-cpu/src/ops/router.rs",
    "backend-cpu/src/ops/tables.rs",
    "backend-cpu/src/pool.rs",
    "backend-cpu/src/product/blocks.rs",
    "backend-cpu/src/product/blocks/k.rs",
    "backend-cpu/src/product/blocks/small.rs",
    "backend-cpu/src/product/exact.rs",
    "backend-cpu/src/product/kernel.rs",
    "backend-cpu/src/product/lanes.rs",
    "backend-cpu/src/product/lanes/avx2.rs",
    "backend-cpu/src/product/lanes/avx512.rs",
    "backend-cpu/src/product/lanes/avx512/picked.rs",
    "backend-cpu/src/product/lanes/scalar.rs",
    "backend-cpu/src/product/many.rs",
    "backend-cpu/src/product/sixteens.rs",
    "backend-cpu/src/product/panel.rs",
    "backend-cpu/src/product/panel/amx.rs",
    "backend-cpu/src/product/panel/bf16.rs",
    "backend-cpu/src/product/panel/floats.rs",
    "backend-cpu/src/product/panel/integers.rs",
    "backend-cpu/src/product/panel/kernels.rs",
    "backend-cpu/src/product/panel/packing.rs",
    "backend-cpu/src/product/panel/unpack.rs",
    "backend-cpu/src/product/plain.rs",
    "backend-cpu/src/product/run.rs",
    "backend-cpu/src/product/supers.rs",
    "backend-cpu/src/product/select.rs",
    "backend-cpu/src/product/tests/mod.rs",
    "backend-cpu/src/product/tests/panels.rs",
    "backend-cpu/src/program.rs",
    "backend-cpu/src/view.rs",
    "backend-cpu/tests/allocations.rs",
    "backend-cpu/tests/edges.rs",
    "backend-cuda37/emulation/src/driver.rs",
    "backend-cuda37/emulation/src/libcuda.rs",
    "backend-cuda37/emulation/src/streams.rs",
    "backend-cuda37/src/device.rs",
    "backend-cuda37/src/driver/cuda.rs",
    "backend-cuda37/src/driver/mod.rs",
    "backend-cuda37/src/launch.rs",
    "backend-cuda37/src/measure.rs",
    "backend-cuda37/src/modules.rs",
    "backend-cuda37/src/program.rs",
    "backend-cuda37/src/resources.rs",
    "backend-cuda37/src/staging.rs",
    "host/src/execution/device.rs",
    "host/src/execution/share.rs",
    "host/src/execution/tests/mod.rs",
    "host/src/plugins/probe.rs",
    "host/src/plugins/trust.rs",
    "host/src/setup/tests.rs",
    "host/tests/allocations.rs",
    "models/src/gguf/guard.rs",
    "models/src/gguf/source.rs",
    "models/tests/gguf_cut_while_mapped.rs",
    "tests/faulty-backend/src/stranger.rs",
    "tests/malloc-counter/src/lib.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A source file by its path below the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines of code before the tests at the file's end; comments are left out.
    fn code(&self) -> impl Iterator<Item = &str> {
        let lines = self.text.lines().take_while(|line| *line != "#[cfg(test)]");
        lines.map(|line| line.split("//").next().unwrap_or_default())
    }

    fn is_test(&self) -> bool {
        self.path
            .split('/')
            .any(|part| matches!(part, "tests" | "tests.rs" | "benches" | "examples"))
    }
}

/// The source files below a folder of the repository.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "{folder} has sources");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            collect(&path, found);
        } else if name.ends_with(".rs") {
            let below = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(Source {
                path: below,
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

/// Every package of the workspace with the parts that it depends on; `all` counts what tests and builds need, too.
fn parts(all: bool) -> Vec<(String, BTreeSet<String>)> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    let dependencies = |package: &Value| {
        let listed = package["dependencies"].as_array().unwrap().iter();
        let counted = listed.filter(|dependency| all || dependency["kind"].is_null());
        counted.map(name).filter(|name| members.contains(name)).collect()
    };
    packages
        .iter()
        .map(|package| (name(package), dependencies(package)))
        .collect()
}

fn part(name: &str) -> BTreeSet<String> {
    parts(true).into_iter().find(|(part, _)| part == name).unwrap().1
}

/// No line of code of these sources has any of `words`.
fn assert_absent(sources: &[Source], words: &[&str]) {
    for source in sources.iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code().enumerate() {
            let found = words.iter().find(|word| line.contains(*word));
            assert_eq!(found, None, "{}:{}: {line}", source.path, number + 1);
        }
    }
}

#[test]
fn the_contract_depends_on_no_other_part() {
    assert_eq!(part("backend-api"), BTreeSet::new());
}

#[test]
fn models_know_the_contract_alone_and_no_plugin_or_device() {
    assert_eq!(part("models"), BTreeSet::from(["backend-api".to_owned()]));
    assert_absent(
        &sources("models/src"),
        &[
            "backend_api::contract",
            "backend_api::plugin",
            "BackendModule",
            "Device",
            "Plugin",
        ],
    );
}

#[test]
fn the_host_names_no_backend() {
    assert_eq!(
        part("host"),
        BTreeSet::from(["backend-api".to_owned(), "models".to_owned()])
    );
    let names = [
        "cuda37",
        "backend_cpu",
        "backend-cpu",
        "backend_cuda",
        "== \"cpu\"",
        "\"cpu\" =>",
        "(\"cpu\")",
    ];
    assert_absent(&sources("host/src"), &names);
}

#[test]
fn backends_see_the_contract_alone() {
    let backends = parts(false)
        .into_iter()
        .filter(|(name, _)| name.starts_with("backend-") && name != "backend-api");
    let mut count = 0;
    for (name, parts) in backends {
        assert_eq!(parts, BTreeSet::from(["backend-api".to_owned()]), "{name}");
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn unsafe_code_stands_in_known_files_with_its_reason() {
    let mut files = BTreeSet::new();
    for source in sources(".")
        .iter()
        .filter(|source| source.path != "tests/architecture.rs")
    {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe")
            {
                files.insert(source.path.clone());
            }
            if code.contains("unsafe {") || code.contains("unsafe impl") {
                let above = &lines[at.saturating_sub(REASON_ABOVE)..=at];
                let reason = above.iter().any(|line| line.contains("SAFETY"));
                assert!(reason, "{}:{}: no SAFETY comment: {line}", source.path, at + 1);
            }
        }
    }
    let known: BTreeSet<String> = UNSAFE.iter().map(|path| path.to_string()).collect();
    let (new, gone): (Vec<_>, Vec<_>) = (files.difference(&known).collect(), known.difference(&files).collect());
    assert!(new.is_empty(), "unsafe code in files that are not listed: {new:?}");
    assert!(gone.is_empty(), "no unsafe code any more in {gone:?}");
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    for source in sources(".") {
        let lines = source.text.lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", source.path);
    }
}

#[test]
fn nothing_is_left_undone_in_the_product() {
    let stubs = ["todo!(", "unimplemented!(", "dbg!("];
    for folder in ["backend-api/src", "backend-cpu/src", "models/src", "host/src"] {
        assert_absent(&sources(folder), &stubs);
    }
}

#[test]
fn every_architecture_is_one_file_in_one_list() {
    let folder = sources("models/src/architecture");
    let list = folder.iter().find(|source| source.path.ends_with("/mod.rs")).unwrap();
    let files: Vec<&str> = folder
        .iter()
        .filter_map(|source| source.path.rsplit('/').next()?.strip_suffix(".rs"))
        .collect();
    let mut names = 0;
    for file in files.into_iter().filter(|file| *file != "mod") {
        assert_eq!(list.text.matches(&format!("mod {file};")).count(), 1, "mod {file}");
        assert_eq!(
            list.text.matches(&format!("{file}::ARCHITECTURE")).count(),
            1,
            "{file} is in the list once"
        );
        names += 1;
    }
    assert!(models::architecture::known().len() >= names);
}

/// The lines of an architecture's code that say something: trimmed, without comments, imports and short ones.
fn lines_with_meaning(source: &Source) -> Vec<&str> {
    let mut import = false;
    let mut lines = Vec::new();
    for line in source.code().map(str::trim) {
        import |= line.starts_with("use ");
        if !import && line.len() >= LINE_WITH_MEANING {
            lines.push(line);
        }
        import &= !line.ends_with(';');
    }
    lines
}

/// Percent of the lines of `one` that stand in `other`.
fn percent_shared(one: &[&str], other: &[&str]) -> usize {
    let other: BTreeSet<&str> = other.iter().copied().collect();
    100 * one.iter().filter(|line| other.contains(*line)).count() / one.len()
}

#[test]
fn an_architecture_is_a_short_file_and_no_copy_of_another() {
    let files = sources("models/src/architecture");
    for source in &files {
        let lines = source.text.lines().count();
        assert!(lines <= LONGEST_ARCHITECTURE, "{} has {lines} lines", source.path);
    }
    let lines: Vec<Vec<&str>> = files.iter().map(lines_with_meaning).collect();
    let of_two = |i: usize, j: usize| (percent_shared(&lines[i], &lines[j]), &files[i].path, &files[j].path);
    let pairs = (0..files.len()).flat_map(|i| (0..files.len()).filter(move |&j| j != i).map(move |j| (i, j)));
    let (percent, one, other) = pairs.map(|(i, j)| of_two(i, j)).max().unwrap();
    println!("most is shared by {one}: {percent} % of its lines stand in {other}");
    assert!(
        percent < MOST_SHARED,
        "{percent} % of the lines of {one} stand in {other}"
    );
}

#[test]
fn lines_that_two_files_share_are_counted_without_imports_comments_and_brackets() {
    let source = |text: &str| Source {
        path: String::new(),
        text: text.into(),
    };
    let one = source("use a::{\n    long_import,\n};\n// a comment\nlet shared = 1;\n}\nlet own = 22;\n");
    let other = source("    let shared = 1; // here too\nlet another = 333;\nlet third = 333;\n");
    let [one, other] = [&one, &other].map(lines_with_meaning);
    assert_eq!(one, ["let shared = 1;", "let own = 22;"]);
    assert_eq!((percent_shared(&one, &other), percent_shared(&other, &one)), (50, 33));
}

#[test]
fn a_build_needs_one_registry_alone() {
    let settings = root().join(".cargo");
    assert!(!settings.exists(), "settings of one machine are not kept with the code");
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let sources: BTreeSet<&str> = lock.lines().filter(|line| line.starts_with("source = ")).collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
    assert!(
        sources.iter().all(|source| source.starts_with("source = \"registry+")),
        "{sources:?}"
    );
}

#[test]
fn the_documents_are_there() {
    for file in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.starts_with("# "), "{file} begins with a title");
    }
}
