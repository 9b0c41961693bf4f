//! A file that is cut while it is mapped ends the process with a message, not with a silent signal.

use std::env;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::ptr;

use models::gguf::guard::install_sigbus_handler;
use models::gguf::{Gguf, GgufWriter, TensorType};

const FILE: &str = "GRAFT_TEST_CUT_FILE";

/// Runs the ignored test `name` of this program, with a model's path in its environment.
fn child(name: &str, path: &Path) -> Output {
    let arguments = ["--ignored", "--exact", "--nocapture", name];
    Command::new(env::current_exe().unwrap())
        .args(arguments)
        .env(FILE, path)
        .output()
        .unwrap()
}

/// A model whose data fill several pages.
fn model(path: &Path) {
    let mut writer = GgufWriter::new();
    writer
        .tensor("w", &[1 << 16], TensorType::I8, vec![1; 1 << 16])
        .unwrap();
    writer.write(path).unwrap();
}

#[test]
fn the_message_names_the_file_and_the_status_is_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    model(&path);
    let output = child("reads_a_file_that_is_cut", &path);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains(&format!(
            "error: {}: the file changed while it was in use",
            path.display()
        )),
        "{message}"
    );
}

#[test]
fn a_sigbus_elsewhere_kills_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    model(&path);
    let output = child("reads_a_map_of_its_own_that_is_cut", &path);
    assert_eq!(output.status.signal(), Some(libc::SIGBUS));
    assert!(!String::from_utf8(output.stderr).unwrap().contains("changed while"));
}

fn cut(path: &str) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(4096)
        .unwrap();
}

#[test]
#[ignore = "dies: run by the tests above"]
fn reads_a_file_that_is_cut() {
    let Ok(path) = env::var(FILE) else { return };
    install_sigbus_handler();
    let gguf = Gguf::open(Path::new(&path)).unwrap();
    let data = gguf.data(&gguf.tensors()[0]);
    assert_eq!(data.last(), Some(&1));
    cut(&path);
    let sum: u64 = data.iter().map(|&byte| u64::from(byte)).sum();
    unreachable!("read {sum} from a file that is gone");
}

#[test]
#[ignore = "dies: run by the tests above"]
fn reads_a_map_of_its_own_that_is_cut() {
    let Ok(path) = env::var(FILE) else { return };
    install_sigbus_handler();
    let file = OpenOptions::new().read(true).open(&path).unwrap();
    // SAFETY: the bytes are read through a volatile pointer only, and dying of it is what is tested.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    cut(&path);
    // SAFETY: within the map.
    let byte = unsafe { ptr::read_volatile(map.as_ptr().add(1 << 15)) };
    unreachable!("read {byte} from a file that is gone");
}
