//! Words and figures of stores that must be true whatever was looked at before.

use crate::practice::{Practice, walk};
use std::fs;

#[test]
fn maintenance_that_never_saw_an_object_misses_it_and_brings_it_back() {
    let p = Practice::new("");
    let mut settings = format!(
        "practice = \"P\"\ntime_zone = \"Europe/Berlin\"\nstate_dir = \"maintain-state\"\nsocket = \"{}\"\n\
         maintain_schedule = \"0 6 1 1 *\"\n",
        p.at("m")
    );
    for name in ["one", "two"] {
        let path = p.at(name);
        settings += &format!(
            "[[store]]\nname = \"{name}\"\nkind = \"folder\"\npath = \"{path}\"\nsite = \"{name}\"\nprovider = \"p\"\n"
        );
    }
    fs::write(p.at("p/maintain.toml"), settings).unwrap();
    p.open_emr();
    let _serve = p.start("serve");
    let _maintain = p.start("maintain");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    // It goes before maintenance has looked for the first time.
    let pack = walk(p.at("two/packs").as_ref()).pop().unwrap();
    let whole = fs::read(&pack).unwrap();
    fs::remove_file(&pack).unwrap();
    let heal = || {
        let done = p.output(&["heal", "--store", "two", "--json", "--maintain", &format!("unix:{}", p.at("m"))]);
        let text = String::from_utf8(done.stdout).unwrap();
        let told: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        (done.status.code(), told["stores"][0]["missing"].as_u64(), told["stores"][0]["healed"].as_u64())
    };
    assert_eq!(heal(), (Some(0), Some(1), Some(1)));
    assert_eq!(fs::read(&pack).unwrap(), whole);
    assert_eq!(heal(), (Some(0), Some(0), Some(0)));
    // What lies nowhere else is told, for as long as it is missing.
    fs::remove_file(&pack).unwrap();
    fs::remove_file(pack.to_str().unwrap().replacen(&p.at("two"), &p.at("one"), 1)).unwrap();
    assert_eq!(heal(), (Some(1), Some(1), Some(0)));
}
