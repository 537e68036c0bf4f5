//! The program `verify-chain`, as somebody runs it who has certificates in files.

use std::fs;
use std::process::Command;

use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::by_hand::text;
use fleetcert_tests::lab::pki::{self, Node};
use fleetcert_tests::lab::run::run;

const NAME: &str = "broker.fleet.example";

/// A tree with a root and an issuing authority.
struct Tree {
    root: Node,
    issuing: Node,
}

impl Tree {
    fn new() -> Self {
        let root = Node::root(pki::authority("root"));
        let issuing = root.signs(pki::authority("issuing"));
        Self { root, issuing }
    }
}

/// Runs the program `verify-chain`; its exit code and what it said.
fn verify_chain(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verify-chain"));
    command.args(arguments);
    let outcome = run(command, b"");
    (outcome.code, outcome.text())
}

/// Goal: the program says by its exit code what the verifier said, and why on standard error.
#[test]
fn the_program_answers_for_files_of_either_form() {
    let folder = tempfile::tempdir().or_fail("a folder");
    let tree = Tree::new();
    let leaf = tree.issuing.signs(pki::server(NAME));
    let (root, _) = tree.root.write(folder.path(), "root", &[]);
    let (bundle, _) = leaf.write(folder.path(), "bundle", &[&tree.issuing]);
    let der = |name: &str, octets: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, octets).or_fail("a file");
        path
    };
    let (leaf, issuing) = (der("leaf.der", &leaf.der), der("issuing.der", &tree.issuing.der));
    let (root, bundle) = (text(&root), text(&bundle));
    let (good, bad) = ("2026-11-22T00:00:00Z", "2041-01-01T00:00:00Z");
    let pem = ["--anchor", root, "--chain", bundle, "--name", NAME, "--time"];
    assert_eq!(verify_chain(&[&pem[..], &[good]].concat()), (Some(0), String::new()));
    let both = ["--chain", text(&leaf), text(&issuing)];
    let der = [&["--anchor", root][..], &both, &["--name", NAME, "--time", "1795305600"]].concat();
    assert_eq!(verify_chain(&der), (Some(0), String::new()));
    let (code, said) = verify_chain(&[&pem[..], &[bad]].concat());
    assert_eq!(code, Some(1));
    assert!(said.starts_with("verify-chain: expired: "), "{said}");
    // And by how much: what a board says on its serial line besides.
    assert!(said.contains("\nverify-chain: a certificate's time: "), "{said}");
    assert!(said.trim_end().ends_with(" at 2041-01-01T00:00:00Z"), "{said}");
    let (code, said) =
        verify_chain(&["--anchor", root, "--chain", root, "--name", NAME, "--time", good]);
    assert!(code == Some(1) && said.contains("authority-as-server"), "{said}");
}

#[test]
fn the_program_tells_a_question_that_makes_no_sense_from_a_refusal() {
    let folder = tempfile::tempdir().or_fail("a folder");
    let tree = Tree::new();
    let (root, key) = tree.root.write(folder.path(), "root", &[]);
    let (root, key) = (text(&root), text(&key));
    let ask = |anchor, chain, name, time| {
        verify_chain(&["--anchor", anchor, "--chain", chain, "--name", name, "--time", time])
    };
    assert_eq!(verify_chain(&[]).0, Some(2));
    assert_eq!(ask(root, "/nonexistent", NAME, "0").0, Some(2));
    assert_eq!(ask(root, root, "not a name", "0").0, Some(2));
    assert_eq!(ask(root, root, NAME, "yesterday").0, Some(2));
    let (code, said) = ask(root, key, NAME, "0");
    assert!(code == Some(1) && said.contains("malformed"), "{said}");
    let (code, said) = ask(key, root, NAME, "0");
    assert!(code == Some(1) && said.contains("anchor-malformed"), "{said}");
    let (code, said) = verify_chain(&["--help"]);
    assert_eq!(code, Some(0));
    for option in ["--anchor", "--chain", "--name", "--time", "--clock", "--server"] {
        assert!(said.contains(option), "{option} in {said}");
    }
}
