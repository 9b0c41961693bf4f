//! Compiles the kernels and the emulation with g++.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

fn main() -> io::Result<()> {
    let kernels = Path::new("../kernels");
    println!("cargo::rerun-if-changed={}", kernels.display());
    for extension in ["cc", "h"] {
        for file in with_extension(Path::new("."), extension) {
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
    if let Err(error) = Command::new("g++").arg("--version").output() {
        let hint = "install it, as by `apt-get install g++`";
        println!(
            "cargo::error=the emulation of CUDA kernels is compiled by g++, which does not start ({error}): {hint}"
        );
        return Ok(());
    }
    let mut engine = compiler();
    engine.file("cuda_emu.cc").compile("engine");
    let mut entries = compiler();
    entries.objects(objects(kernels)?);
    // each kernel enters itself into a table, and nothing else names it
    entries.link_lib_modifier("+whole-archive").compile("kernels");
    println!("cargo::rustc-link-lib=stdc++");
    Ok(())
}

/// The object of each module, compiled side by side.
fn objects(kernels: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = PathBuf::from(env::var("OUT_DIR").unwrap_or_default());
    let mut modules = Vec::new();
    for file in with_extension(kernels, "cu") {
        modules.extend(Module::of(&file)?);
    }
    let objects = modules.iter().map(|m| folder.join(format!("{}.o", m.name))).collect();
    let tool = compiler().get_compiler();
    let rest = Mutex::new(modules);
    let work = || {
        let next = || rest.lock().ok().and_then(|mut rest| rest.pop());
        while let Some(module) = next() {
            let mut command = tool.to_command();
            command.args(&module.definitions).arg("-c").arg(&module.file);
            command.arg("-o").arg(folder.join(format!("{}.o", module.name)));
            if !command.status().is_ok_and(|status| status.success()) {
                println!("cargo::error=g++ cannot compile the module {}", module.name);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    Ok(objects)
}

/// A file of kernels with what it is compiled with.
struct Module {
    /// Of the file, and the values of the macros behind points.
    name: String,
    file: PathBuf,
    /// As arguments of the compiler.
    definitions: Vec<String>,
}

impl Module {
    /// All modules of a file. One that is several has a line `// Modules: A=x|y B=1|2`: macros and the values that each
    /// may have.
    fn of(file: &Path) -> io::Result<Vec<Module>> {
        let source = fs::read_to_string(file)?;
        let macros = source.lines().find_map(|line| line.strip_prefix("// Modules: "));
        let mut modules = vec![Module {
            name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            file: file.to_owned(),
            definitions: Vec::new(),
        }];
        for (name, values) in macros.unwrap_or_default().split(' ').filter_map(|m| m.split_once('=')) {
            let with = |value| modules.iter().map(move |module: &Module| module.with(name, value));
            modules = values.split('|').flat_map(with).collect();
        }
        Ok(modules)
    }

    fn with(&self, name: &str, value: &str) -> Module {
        let mut definitions = self.definitions.clone();
        definitions.push(format!("-D{name}={value}"));
        Module {
            name: format!("{}.{value}", self.name),
            file: self.file.clone(),
            definitions,
        }
    }
}

/// g++ as `cuda_emu.h` asks for it.
fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .compiler("g++")
        .std("c++17")
        .opt_level(2)
        .warnings(false);
    build.flags(["-ffp-contract=off", "-fsanitize=bounds", "-x", "c++"]);
    if env::var("TARGET") == env::var("HOST") {
        build.flag("-march=native");
    }
    build.cpp_link_stdlib(None);
    build
}

fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension() == Some(OsStr::new(extension)));
    found.sort();
    found
}
