//! What is printed and drawn, of figures made up here.

use super::page::{markdown, text};
use super::picture::draw;
use super::report::{
    Ceilings, Doubling, Figure, Kernel, Memory, Rate, Report, Setting, Share, What,
};
use serde_json::json;

fn report(figures: Vec<Figure>) -> Report {
    let mut report = Report::new(Setting {
        model: "a<b>.gguf".into(),
        file_bytes: 1_700_000_000,
        processor: "P & Q".into(),
        cores: 2,
        device: "CPU (scalar)".into(),
        threads: 2,
        cache_type: "f16".into(),
        prompt: 512,
        tokens: 24,
        repeats: 3,
        laid: false,
    });
    report.figures = figures;
    report.memory = Memory {
        deltad: 1 << 20,
        rival: None,
        process: 3 << 20,
    };
    report
}

fn figure(what: What, depth: usize, lanes: usize, median: f64, rival: Option<f64>) -> Figure {
    let rate = |median: f64| Rate::of(vec![median * 0.9, median * 1.2, median]);
    Figure::new(what, depth, lanes, rate(median), rival.map(rate))
}

#[test]
fn a_rate_is_the_middle_of_its_measurements_with_both_ends() {
    let odd = Rate::of(vec![3.0, 1.0, 2.0]);
    assert_eq!((odd.median, odd.least, odd.most), (2.0, 1.0, 3.0));
    assert_eq!(Rate::of(vec![4.0, 1.0, 3.0, 2.0]).median, 2.5);
    assert_eq!(odd.to_string(), "2.0 (1.0 to 3.0)");
}

#[test]
fn the_rival_has_columns_where_it_was_measured_alone() {
    let alone = text(&report(vec![figure(What::Decode, 0, 1, 50.0, None)]));
    assert!(
        alone.contains("decode      0      1  50.0 (45.0 to 60.0)\n"),
        "{alone}"
    );
    assert!(!alone.contains("llama.cpp"), "{alone}");
    let beside = figure(What::Decode, 8192, 1, 50.0, Some(25.0));
    let beside = markdown(&report(vec![beside]));
    let row = "| decode | 8192 | 1 | 50.0 (45.0 to 60.0) | 25.0 (22.5 to 30.0) | 2.00 |\n";
    assert!(beside.contains(row), "{beside}");
}

#[test]
fn laid_depths_are_said_to_be() {
    let mut all = report(vec![figure(What::Decode, 8192, 1, 50.0, None)]);
    assert!(!text(&all).contains("laid"), "{}", text(&all));
    all.setting.laid = true;
    assert!(text(&all).contains("Depths are laid"), "{}", text(&all));
}

#[test]
fn a_profile_holds_each_work_against_the_ceilings() {
    let mut one = figure(What::Decode, 0, 1, 50.0, None);
    one.profile = Some(vec![Share {
        work: "experts",
        arithmetic: "8 bit",
        milliseconds: 15.0,
        share: 0.75,
        bytes_per_second: Some(15e9),
        operations_per_second: Some(50e9),
    }]);
    let mut report = report(vec![one]);
    report.ceilings = Some(Ceilings {
        read: 30e9,
        floats: Some(200e9),
        bytes: Some(1000e9),
    });
    report.figures[0]
        .profile
        .as_mut()
        .expect("shares")
        .push(Share {
            work: "mla",
            arithmetic: "f32",
            milliseconds: 5.0,
            share: 0.25,
            bytes_per_second: None,
            operations_per_second: Some(50e9),
        });
    let page = markdown(&report);
    let floats = "| mla | 5.000 | 25.0 % |  |  | 50.0 | 25 % |\n";
    assert!(page.contains(floats), "{page}");
    let row = "| experts | 15.000 | 75.0 % | 15.0 | 50 % | 50.0 | 5 % |\n";
    assert!(page.contains(row), "{page}");
    assert!(page.contains("30.0 GB/s read from memory"), "{page}");
}

#[test]
fn a_card_is_held_against_its_own_memory_kernel_by_kernel() {
    let mut one = figure(What::Decode, 0, 2, 500.0, None);
    one.profile = Some(vec![Share {
        work: "experts",
        arithmetic: "8 bit",
        milliseconds: 2.0,
        share: 1.0,
        bytes_per_second: Some(1500e9),
        operations_per_second: Some(50e9),
    }]);
    one.kernels = vec![Kernel {
        kernel: "gate_up",
        runs: 26.0,
        microseconds: 1250.0,
        share: 0.625,
    }];
    // 3 GB a pass of two tokens, 3000 GB a second.
    one.hold_against(3000e9);
    assert_eq!(one.memory_limit, Some(2000.0));
    let mut report = report(vec![one]);
    report.ceilings = Some(Ceilings {
        read: 3000e9,
        floats: None,
        bytes: None,
    });
    let page = markdown(&report);
    for words in [
        "At most: 3000.0 GB/s by copies within the card, read and written.",
        "| work | ms | share | GB/s | of copies | G op/s |\n",
        "| experts | 2.000 | 100.0 % | 1500.0 | 50 % | 50.0 |\n",
        "| all | 2.000 |  | 1500.0 | 50 % |  |\n",
        "The memory would allow 2000.0 tokens/s; 500.0 are 25 % of that.",
        "| gate_up | 26.0 | 1250.0 | 62.5 % |\n",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("threads:"), "{page}");
}

#[test]
fn only_decoding_is_held_against_the_memory() {
    let mut read = figure(What::Prefill, 0, 1, 500.0, None);
    read.hold_against(3000e9);
    assert_eq!(read.memory_limit, None);
}

#[test]
fn company_is_told_where_it_was_noticed() {
    let mut one = figure(What::Decode, 0, 1, 50.0, None);
    one.others = 0.02;
    assert!(!text(&report(vec![one.clone()])).contains("Other programs"));
    one.others = 0.75;
    let page = text(&report(vec![one]));
    assert!(
        page.contains("Other programs had up to 0.75 cores"),
        "{page}"
    );
}

#[test]
fn json_has_the_figures_under_their_names() {
    let all = report(vec![figure(What::Prefill, 8192, 1, 600.0, Some(200.0))]);
    let value: serde_json::Value = serde_json::from_str(&all.to_json()).expect("JSON");
    assert_eq!(value["figures"][0]["what"], "prefill");
    assert_eq!(value["figures"][0]["llama_cpp"]["median"], json!(200.0));
    assert_eq!(value["figures"][0]["ratio"], json!(3.0));
    assert_eq!(value["setting"]["threads"], 2);
    assert!(value.get("doublings").is_none());
}

#[test]
fn doublings_are_a_table_of_their_own() {
    let mut grown = report(Vec::new());
    grown.doublings = vec![Doubling {
        tokens: 2048,
        state_bytes: 5 << 20,
        resident_bytes: 9 << 20,
        read: 1000.0,
        decode: 99.5,
    }];
    let page = markdown(&grown);
    assert!(
        page.contains("| 2048 | 5.0 | 9.0 | 1000.0 | 99.5 |\n"),
        "{page}"
    );
    assert!(!page.contains("median"), "{page}");
}

#[test]
fn the_picture_is_one_panel_a_kind_and_one_curve_a_side() {
    let mut figures = Vec::new();
    for (depth, rate) in [(0, 600.0), (8192, 400.0), (32_768, 100.0)] {
        figures.push(figure(What::Prefill, depth, 1, rate, Some(rate / 2.0)));
        figures.push(figure(What::Decode, depth, 1, rate / 10.0, None));
        figures.push(figure(What::Decode, depth, 4, rate / 4.0, None));
    }
    let svg = draw(&report(figures));
    assert_eq!(svg.matches("<polyline").count(), 4, "{svg}");
    assert_eq!(svg.matches("tokens/s over depth</text>").count(), 2);
    for words in [
        ">deltad</text>",
        ">llama.cpp</text>",
        ">deltad, 4</text>",
        ">32k</text>",
    ] {
        assert!(svg.contains(words), "{words}: {svg}");
    }
    assert!(svg.contains("a&lt;b&gt;.gguf: P &amp; Q"), "{svg}");
    // What opens is closed, and no number is missing.
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn a_picture_of_one_depth_or_of_nothing_is_whole_too() {
    let one = draw(&report(vec![figure(What::Decode, 0, 1, 0.5, None)]));
    assert!(one.contains("<circle") && !one.contains("NaN"), "{one}");
    let none = draw(&report(Vec::new()));
    assert!(none.ends_with("</svg>\n"), "{none}");
}
