//! What is said of the kernels here is what they say of themselves: g++ compiles a program that prints it.

use std::{
    env, fs,
    process::{self, Command},
};

/// Compares expressions over the kernels' headers with the numbers that they are here: `("TILE_ROWS", 64)`. Says that it does
/// not where g++ is missing.
pub fn assert_same(headers: &[&str], numbers: &[(String, u64)]) {
    let Some(said) = said(headers, numbers.iter().map(|(expression, _)| expression)) else {
        return;
    };
    let expected: Vec<String> = numbers.iter().map(|(what, n)| format!("{what} = {n}")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

/// Each expression and its value, a line each.
fn said<'a>(headers: &[&str], expressions: impl Iterator<Item = &'a String>) -> Option<String> {
    let there = Command::new("g++").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: what the kernels say of themselves takes g++, which is not installed");
        return None;
    }
    let included: String = headers.iter().map(|name| format!("#include \"{name}\"\n")).collect();
    let printed: String = expressions
        .map(|what| format!("say(\"{what}\", ({what}));\n"))
        .collect();
    let text = format!(
        "{included}
        #include <cstdio>
        static void say(const char *name, unsigned long n) {{ printf(\"%s = %lu\\n\", name, n); }}
        int main() {{
            {printed}
        }}"
    );
    let folder = env::temp_dir().join(format!("cuda37-{}-{}", headers.join("-"), process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (source, program) = (folder.join("constants.cc"), folder.join("constants"));
    fs::write(&source, text).unwrap();
    let mut compiler = Command::new("g++");
    compiler.args([
        "-std=c++17",
        "-w",
        "-I",
        concat!(env!("CARGO_MANIFEST_DIR"), "/kernels"),
    ]);
    let compiled = compiler.arg(&source).arg("-o").arg(&program).output().unwrap();
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let output = Command::new(program).output().unwrap();
    fs::remove_dir_all(folder).unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}
