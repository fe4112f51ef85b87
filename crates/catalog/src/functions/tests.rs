use super::*;

fn with(list: &[(&str, bool, bool, Option<&str>)]) -> Functions {
    let mut functions = Functions { definitions: Some(3), ..Functions::default() };
    for (name, volatile, language, source) in list {
        functions.add((*name).to_owned(), *volatile, *language, false, *source);
    }
    functions.follow_calls();
    functions
}

#[test]
fn unknown_functions_may_write() {
    let mut functions = with(&[("uuid_generate_v4", true, false, None)]);
    functions.built_in.insert("lower".into());
    assert_eq!(functions.nature(Some(3), None, "lower"), FunctionNature::Harmless);
    assert_eq!(functions.nature(Some(3), Some("app"), "lower"), FunctionNature::MayWrite);
    assert_eq!(functions.nature(Some(3), None, "uuid_generate_v4"), FunctionNature::MayWriteOthers);
    assert_eq!(functions.nature(Some(4), None, "uuid_generate_v4"), FunctionNature::MayWrite);
    assert_eq!(functions.nature(Some(3), Some("pg_catalog"), "lo_unlink"), FunctionNature::MayWrite);
    assert_eq!(functions.nature(Some(3), None, "anything"), FunctionNature::MayWrite);
}

#[test]
fn a_source_tells_what_a_function_may_do() {
    let functions = with(&[
        ("reads", true, true, Some("begin return (select max(v) from t); end")),
        ("writes", true, true, Some("BEGIN UPDATE t SET v = 1; END")),
        ("calls", true, true, Some("begin perform further(); end")),
        ("further", false, true, Some("select writes()")),
        ("sets", true, true, Some("begin set local search_path = a; end")),
        ("parsed", true, true, None),
        ("a_view", false, true, Some("calls lower")),
    ]);
    let nature = |name| functions.nature(Some(3), None, name);
    assert_eq!(nature("reads"), FunctionNature::Harmless);
    assert_eq!(nature("sets"), FunctionNature::ChangesSession);
    for name in ["writes", "calls", "further", "parsed"] {
        assert_eq!(nature(name), FunctionNature::MayWrite, "{name}");
    }
    assert_eq!(functions.nature_of_read(Some(3), "a_view"), FunctionNature::MayWrite);
    assert_eq!(functions.nature_of_read(Some(3), "a_table"), FunctionNature::Harmless);
    assert!(functions.may_commit(Some(3), "parsed") && !functions.may_commit(Some(3), "writes"));
    assert!(block_may_commit("begin commit; end") && !block_may_commit("begin update t set v = 1; end"));
}

#[test]
fn what_stands_behind_other_names() {
    let mut functions = Functions { definitions: Some(3), ..Functions::default() };
    let behind =
        |name: &str, function: &str, anywhere| Behind { name: name.into(), function: function.into(), anywhere };
    functions.behind = vec![behind("===", "writes", false), behind("##", "reads", false), behind("=", "reads", true)];
    functions.operators.insert("||".into());
    functions.add("writes".into(), true, true, false, Some("begin delete from t; return a = b; end"));
    functions.add("reads".into(), true, true, false, Some("begin return a = b; end"));
    functions.add("uses".into(), true, true, false, Some("select 1 === 2"));
    functions.follow_calls();
    functions.look_behind();
    let other = |known, name| functions.nature_of_other(known, name);
    assert_eq!(other(Some(3), "==="), FunctionNature::MayWrite);
    assert_eq!(other(Some(3), "##"), FunctionNature::Harmless);
    assert_eq!(functions.nature(Some(3), None, "uses"), FunctionNature::MayWrite);
    assert_eq!(functions.nature_anywhere(), FunctionNature::Harmless);
    // after other definitions, what isn't known may be new
    assert_eq!(other(None, "||"), FunctionNature::Harmless);
    assert_eq!(other(None, "+++"), FunctionNature::MayWrite);
    assert_eq!(other(None, "a_column"), FunctionNature::Harmless);
}

#[test]
fn what_is_defined_anew_is_doubted_with_all_that_calls_it() {
    let mut functions = with(&[
        ("reads", true, true, Some("begin return (select max(v) from t); end")),
        ("calls", true, true, Some("begin perform reads(); end")),
        ("other", true, true, Some("begin return 1; end")),
        ("seen", false, true, Some("calls")),
    ]);
    functions.built_in.insert("lower".into());
    functions.behind = vec![Behind { name: "===".into(), function: "reads".into(), anywhere: false }];
    let names = ["reads".to_owned(), "lower".to_owned()].into();
    let doubting = functions.doubting(&names, 4);
    let nature = |name| doubting.nature(Some(4), None, name);
    for name in ["reads", "calls", "seen", "lower"] {
        assert_eq!(nature(name), FunctionNature::MayWrite, "{name}");
        assert!(doubting.defines(name) && doubting.trigger_sets(Some(4), name));
    }
    assert_eq!(nature("other"), FunctionNature::Harmless);
    assert_eq!(doubting.nature_of_read(Some(4), "seen"), FunctionNature::MayWrite);
    assert_eq!(doubting.nature_of_other(Some(4), "==="), FunctionNature::MayWrite);
    assert_eq!(doubting.nature(Some(3), None, "other"), FunctionNature::MayWrite, "they are of that state only");
    assert_eq!(functions.doubting(&BTreeSet::new(), 4).nature(Some(4), None, "calls"), FunctionNature::Harmless);
}
