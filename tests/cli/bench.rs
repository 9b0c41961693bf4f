//! `host bench`: its figures are not the tests' concern, their shapes are.

use crate::{MODEL, host, json, keys};

const SHORT: [&str; 8] = ["-p", "9", "-n", "3", "-r", "2", "-d", "0,20"];

fn bench(more: &[&str]) -> String {
    let ran = host(&[&["bench", MODEL], &SHORT[..], more].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.stdout
}

#[test]
fn results_in_json_have_the_names_of_llama_bench_and_what_the_machine_can_do() {
    let rows = json(&bench(&["--output", "json"]));
    let rows = rows.as_array().unwrap();
    let test = |row: &serde_json::Value| ["n_prompt", "n_gen", "n_depth"].map(|key| row[key].as_u64().unwrap());
    let tests: Vec<_> = rows.iter().map(test).collect();
    assert_eq!(tests, [[9, 0, 0], [0, 3, 0], [9, 0, 20], [0, 3, 20]]);
    for row in rows {
        for key in [
            "avg_ts",
            "stddev_ts",
            "avg_ns",
            "model_size",
            "model_n_params",
            "n_batch",
            "n_threads",
        ] {
            assert!(row[key].as_f64().is_some(), "{key} in {:?}", keys(row));
        }
        assert_eq!(row["samples_ns"].as_array().unwrap().len(), 2);
        for share in ["read_bandwidth_share", "arithmetic_peak_share"] {
            let share = row[share].as_f64().unwrap();
            assert!(share > 0.0, "{row}");
        }
        assert!(row.get("profile").is_none());
    }
}

#[test]
fn a_profile_names_operations_and_their_shares_are_all_of_the_time() {
    let rows = json(&bench(&["-o", "json", "--profile"]));
    for row in rows.as_array().unwrap() {
        let profile = row["profile"].as_array().unwrap();
        let share: f64 = profile.iter().map(|spent| spent["share"].as_f64().unwrap()).sum();
        assert!((share - 1.0).abs() < 1e-9);
        let has = |name: &str| profile.iter().any(|spent| spent["operation"] == name);
        assert!(has("gated_product.q8_0") && has("attention.f16"), "{row}");
    }
}

#[test]
fn every_token_reads_the_weights_once() {
    let rows = json(&bench(&["-o", "json"]));
    let row = &rows[1];
    let [bytes, size] = ["bytes_per_s", "model_size"].map(|key| row[key].as_f64().unwrap());
    let a_token = bytes * row["avg_ns"].as_f64().unwrap() * 1e-9 / 3.0;
    // the embedding is looked up, and the output projection is another tensor
    assert!(
        (0.85..1.15).contains(&(a_token / size)),
        "{a_token} bytes a token of {size}"
    );
}

#[test]
fn a_table_and_csv_have_a_line_a_test() {
    let table = bench(&[]);
    let named = |name: &str| table.lines().any(|line| line.contains(name));
    assert!(
        named("| pp9 ") && named("| tg3 @ d20 ") && named("This machine, threads "),
        "{table}"
    );
    let csv = bench(&["-o", "csv"]);
    let mut lines = csv.lines();
    let fields = lines.next().unwrap().split(',').count();
    assert_eq!(
        lines.map(|line| line.split(',').count()).collect::<Vec<_>>(),
        [fields; 4]
    );
}
