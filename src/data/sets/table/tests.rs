//! Tables as people and other programs write them.

use proptest::prelude::*;

use super::*;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("tests/golden/tables/{name}.parquet")).unwrap()
}

/// The rows of a Parquet file, or what is wrong with it.
fn parquet(name: &str, wants_pairs: bool) -> Result<Vec<(Option<String>, PairFiles)>, String> {
    let path = format!("{name}.parquet");
    let rows = columns::read(&path, file(name)).map_err(|error| error.to_string())?;
    Rules { file: &path, wants_pairs }.rows(rows).map_err(|error| error.to_string())
}

#[test]
fn parquet_is_read_as_pandas_polars_and_pyarrow_write_it() {
    let csv =
        "split,input,target\ntrain,in/a.png,out/a.png\ntest,in/b.png,out/b.png\ntrain,in/c.png,\n";
    let rows = columns::read("pairs.csv", csv.into()).unwrap();
    let wanted = Rules { file: "pairs.csv", wants_pairs: false }.rows(rows).unwrap();
    assert_eq!(wanted.len(), 3);
    for name in ["pandas", "polars", "plain", "gzip", "binary"] {
        assert_eq!(parquet(name, false).as_ref(), Ok(&wanted), "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_parquet_file_is_said() {
    let fail = |name: &str| parquet(name, true).unwrap_err();
    insta::assert_snapshot!(fail("pandas"), @"row 3 of `pandas.parquet`: there is no `target`");
    insta::assert_snapshot!(fail("no_input"), @"`no_input.parquet`: there is no column `input`");
    insta::assert_snapshot!(fail("empty"), @"`empty.parquet` has no rows");
    insta::assert_snapshot!(fail("numbers"), @"`numbers.parquet`: `input` of row 1 is `1`, not text");
    insta::assert_snapshot!(fail("groups"), @r#"`groups.parquet`: `input` of row 1 is `{bytes: [49], path: "a"}`, not text"#);
    insta::assert_snapshot!(fail("brotli"), @"`brotli.parquet`: no Parquet file that can be read: Parquet error: Disabled feature at compile time: brotli");
    let text = columns::read("x.parquet", b"input,target\n".to_vec()).unwrap_err().to_string();
    insta::assert_snapshot!(text, @"`x.parquet`: no Parquet file that can be read: Parquet error: Invalid Parquet file. Corrupt footer");
}

#[test]
fn a_column_that_is_almost_one_of_those_read_is_refused() {
    let read = |header: &str| {
        let text = format!("{header}\n{}\n", header.replace(|c: char| c != ',', "x"));
        columns::read("t.csv", text.into()).map(|rows| rows.len()).map_err(|e| e.to_string())
    };
    insta::assert_snapshot!(read("input,target,Split").unwrap_err(), @"`t.csv`: the column `Split` is not read, and there is no `split`, which it may be meant for: call it `split`, or something less like it");
    for wrong in ["spilt", "splits", "spit", "SPLIT", "sp lit"] {
        assert!(read(&format!("input,target,{wrong}")).is_err(), "{wrong}");
    }
    assert!(read("input,targets").unwrap_err().contains("no `target`"));
    // Spaces around a cell of a CSV file mean nothing, and what is there as well is not missing.
    assert_eq!(read("input,target, split "), Ok(1));
    assert_eq!(read("input,target,split,Split,caption,names,name"), Ok(1));
}

#[test]
fn a_row_is_named_by_the_line_it_begins_on() {
    let read = |text: &str| {
        let rows = columns::read("t.csv", text.into()).unwrap();
        rows.into_iter().map(|row| row.place).collect::<Vec<_>>()
    };
    assert_eq!(read("input\na\nb\n"), ["line 2", "line 3"]);
    assert_eq!(read("input\n\n\na\n\nb\n"), ["line 4", "line 6"]);
    assert_eq!(read("input\r\n\r\na\r\nb\r\n"), ["line 3", "line 4"]);
    assert_eq!(read("input,name\na,\"two\nlines\"\nb,c\n"), ["line 2", "line 4"]);
}

proptest! {
    /// Foreign bytes are an error, not a panic: the library has some on damaged files.
    #[test]
    fn a_damaged_parquet_file_is_an_error_at_most(
        place in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<bool>(),
    ) {
        for name in ["pandas", "polars", "plain", "gzip"] {
            let mut bytes = file(name);
            let at = place.index(bytes.len());
            bytes[at] = value;
            if cut {
                bytes.truncate(at);
            }
            let _ = columns::read("x.parquet", bytes);
        }
    }
}
