//! What is said of the kernels here is what they say of themselves: g++ compiles a program that prints it.

use std::{
    env, fs,
    process::{self, Command},
};

use super::*;

/// The numbers that the kernels' headers have, a name and a number a line. Nothing where g++ is missing.
fn said_by_kernels() -> Option<String> {
    let there = Command::new("g++").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: what the kernels say of themselves takes g++, which is not installed");
        return None;
    }
    let folder = env::temp_dir().join(format!("cuda37-constants-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (source, program) = (folder.join("constants.cc"), folder.join("constants"));
    let rows = |(ty, width)| format!("say(\"rows {ty} {width}\", FewColumns<Block_{ty}, {width}>::ROWS);\n");
    let rows: String = few()
        .map(|(ty, width)| rows((super::super::spelled(ty), width)))
        .collect();
    let text = format!(
        "#include \"product_few.cuh\"
        #include \"product_many.cuh\"
        #include <cstdio>
        static void say(const char *name, unsigned long n) {{ printf(\"%s = %lu\\n\", name, n); }}
        int main() {{
            {rows}
            say(\"lanes\", FewColumns<Block_f32, 1>::LANES);
            say(\"many rows\", MANY_ROWS);
            say(\"many columns\", MANY_COLUMNS);
            say(\"many threads\", MANY_THREADS);
            say(\"tile bytes\", sizeof(ExpertTile));
            say(\"product args\", sizeof(ProductArgs));
        }}"
    );
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
    let printed = Command::new(program).output().unwrap();
    fs::remove_dir_all(folder).unwrap();
    Some(String::from_utf8(printed.stdout).unwrap())
}

/// The types and widths that products of few columns have kernels for.
fn few() -> impl Iterator<Item = (Type, u32)> {
    let types = Type::ALL.into_iter().filter(|ty| *ty != Type::I32);
    types.flat_map(|ty| [1, FEW_AT_ONCE].map(|width| (ty, width)))
}

#[test]
fn grids_are_made_of_the_tiles_that_the_kernels_have() {
    let Some(said) = said_by_kernels() else { return };
    let mut expected: Vec<String> = few()
        .map(|(ty, width)| {
            format!(
                "rows {} {width} = {}",
                super::super::spelled(ty),
                rows_of_group(ty, width)
            )
        })
        .collect();
    let sizes = [
        ("lanes", FEW_LANES.into()),
        ("many rows", MANY_ROWS.into()),
        ("many columns", MANY_COLUMNS.into()),
        ("many threads", MANY_THREADS.into()),
        ("tile bytes", TILE_BYTES),
        ("product args", size_of::<ProductArgs>() as u64),
    ];
    expected.extend(sizes.map(|(name, n)| format!("{name} = {n}")));
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}
