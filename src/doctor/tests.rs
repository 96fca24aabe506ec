//! Made-up machines and what is to be said of them.

use super::catalog::offer;
use super::judge::{Finding, Report, Verdict, judge};
use super::machine::{
    Bus, Card, Disk, Door, Gpu, Machine, Memory, Needs, Processor, Socket, Units,
};
use crate::config::{self, Config};

const GIB: u64 = 1 << 30;

/// A desktop with nothing to complain of.
fn desktop() -> Machine {
    Machine {
        processor: Processor {
            name: "Desk 9".into(),
            tier: "avx512",
            cores: 16,
            usable: 16,
        },
        memory: Memory {
            total: 64 * GIB,
            available: 60 * GIB,
            limit: None,
            speed: Some(60e9),
        },
        gpus: Vec::new(),
        card: Card {
            why_not: Some("no NVIDIA driver".into()),
            ..Card::default()
        },
        built_for: Vec::new(),
        units: Units {
            systemd: Some(257),
            user: Some("/usr/lib/systemd/user/deltad.socket".into()),
            system: None,
        },
        socket: Socket {
            path: "/run/user/7/deltad/deltad.sock".into(),
            state: Door::Open,
        },
        bus: Bus {
            user: true,
            system: true,
            policy: true,
        },
        disk: Disk {
            path: "/home/u".into(),
            free: 500 * GIB,
        },
    }
}

/// 30 GiB of which a token reads two; 9 GiB for a whole conversation of a million tokens.
fn large() -> Needs {
    Needs {
        path: "large.gguf".into(),
        file: 30 * GIB,
        read_per_token: 2 * GIB,
        state: 64 << 20,
        per_token: 9 << 10,
        context: 1 << 20,
    }
}

fn config() -> Config {
    let mut config = Config::of_a_machine();
    config.service.bus = config::Bus::User;
    config
}

fn report(machine: &Machine, config: &Config) -> Report {
    judge(machine, Some(Ok(&large())), config)
}

fn finding<'a>(report: &'a Report, about: &str) -> &'a Finding {
    let found = report.findings.iter().find(|f| f.about == about);
    found.unwrap_or_else(|| panic!("nothing about {about}: {report:?}"))
}

#[test]
fn a_machine_with_everything_gets_no_advice() {
    let report = report(&desktop(), &config());
    for finding in &report.findings {
        assert_eq!(finding.verdict, Verdict::Good, "{finding:?}");
        assert_eq!(finding.advice, None);
    }
    assert!(report.is_good());
    assert_eq!(report.fits, Some(true));
    let rate = report.tokens_per_second_at_most.expect("a rate");
    assert!((rate - 60e9 / (2.0 * GIB as f64)).abs() < 1e-9, "{rate}");
    assert!(
        finding(&report, "model")
            .found
            .starts_with("fits: 30.0 GiB")
    );
}

/// What is changed about the desktop, whom that concerns, how badly, and a word of the advice.
type Case = (
    fn(&mut Machine, &mut Config),
    &'static str,
    Verdict,
    &'static str,
);

#[test]
fn each_lack_has_its_verdict_and_one_line_of_advice() {
    use Verdict::{Bad, Note};
    let cases: &[Case] = &[
        (
            |m, _| m.processor.tier = "scalar",
            "processor",
            Note,
            "AVX2",
        ),
        (
            |m, _| m.processor.usable = 4,
            "processor",
            Note,
            "CPUQuota=",
        ),
        (
            |_, c| c.model.threads = Some(32),
            "processor",
            Note,
            "model.threads = 32",
        ),
        (
            |m, _| m.memory.limit = Some(50 * GIB),
            "memory",
            Note,
            "MemoryMax=",
        ),
        (
            |_, c| c.sessions.memory = 40 * GIB,
            "memory",
            Note,
            "sessions.memory = \"40GiB\"",
        ),
        (
            |m, _| m.memory.available = 35 * GIB,
            "model",
            Note,
            "model.context = ",
        ),
        (
            |m, _| m.memory.available = 8 * GIB,
            "model",
            Bad,
            "smaller type",
        ),
        (
            |m, _| m.memory.limit = Some(8 * GIB),
            "model",
            Bad,
            "smaller type",
        ),
        (
            |m, _| m.memory.speed = Some(9e9),
            "pace",
            Note,
            "smaller type",
        ),
        (|m, _| m.built_for = vec!["cuda"], "gpu", Note, "driver"),
        (
            |m, _| m.gpus = vec![gpu(Some(80 * GIB))],
            "gpu",
            Note,
            "libcuda.so.1",
        ),
        (
            |m, _| m.gpus = vec![amd()],
            "gpu",
            Note,
            "--features vulkan",
        ),
        (
            |m, _| m.card = card(None, None),
            "gpu",
            Note,
            "make cuda builds the file beside the program",
        ),
        (
            |m, _| m.card = card(Some("k.fatbin"), None),
            "gpu",
            Note,
            "make cuda builds the file of this program",
        ),
        (
            |m, _| m.card = card(Some("k.fatbin"), Some(24 * GIB)),
            "gpu",
            Note,
            "model.device = \"cpu\"",
        ),
        (
            |m, _| (m.gpus, m.built_for) = (vec![gpu(Some(24 * GIB))], vec!["cuda"]),
            "gpu",
            Note,
            "model.device = \"cpu\"",
        ),
        (|m, _| m.units.systemd = None, "units", Note, "deltad serve"),
        (|m, _| m.units.user = None, "units", Note, "make install"),
        (
            |m, _| m.units.systemd = Some(252),
            "units",
            Bad,
            "Type=notify",
        ),
        (
            |m, _| m.socket.state = Door::Absent,
            "socket",
            Note,
            "deltad serve",
        ),
        (
            |m, _| m.socket.state = Door::Stale,
            "socket",
            Note,
            "deltad serve",
        ),
        (
            |m, _| m.socket.state = Door::Forbidden,
            "socket",
            Bad,
            "usermod -aG deltad",
        ),
        (
            |m, _| m.socket.state = Door::NoPlace,
            "socket",
            Bad,
            "XDG_RUNTIME_DIR",
        ),
        (|m, _| m.bus.user = false, "bus", Bad, "service.bus"),
        (
            |_, c| c.service.bus = config::Bus::None,
            "bus",
            Note,
            "service.bus = \"user\"",
        ),
        (
            |m, c| (m.bus.policy, c.service.bus) = (false, config::Bus::System),
            "bus",
            Bad,
            "make install",
        ),
        (
            |m, c| (m.bus.system, c.service.bus) = (false, config::Bus::System),
            "bus",
            Bad,
            "dbus",
        ),
        (
            |m, _| m.disk.free = GIB,
            "disk",
            Note,
            "sessions.disk = \"16GiB\"",
        ),
    ];
    for (i, (change, about, verdict, word)) in cases.iter().enumerate() {
        let (mut machine, mut config) = (desktop(), config());
        change(&mut machine, &mut config);
        let report = report(&machine, &config);
        let said = finding(&report, about);
        assert_eq!(said.verdict, *verdict, "{i}: {said:?}");
        let advice = said.advice.as_deref().expect("advice");
        assert!(advice.contains(word), "{i}: {advice}");
        assert!(!advice.contains('\n'), "{i}: {advice}");
        assert_eq!(report.is_good(), *verdict != Bad, "{i}: {report:?}");
    }
}

fn gpu(memory: Option<u64>) -> Gpu {
    Gpu {
        name: "Big 100".into(),
        by: vec!["cuda", "vulkan"],
        memory,
    }
}

fn amd() -> Gpu {
    Gpu {
        name: "AMD (card0)".into(),
        by: vec!["vulkan"],
        memory: None,
    }
}

/// An NVIDIA card and how far the way to it goes: kernels found, kernels taken.
fn card(kernels: Option<&str>, memory: Option<u64>) -> Card {
    let why = format!("{}: kernels of another build", kernels.unwrap_or("no file"));
    Card {
        name: Some("Big 100".into()),
        kernels: kernels.map(Into::into),
        memory,
        why_not: memory.is_none().then_some(why),
    }
}

#[test]
fn a_card_says_by_what_it_is_used_or_why_it_is_not() {
    let mut machine = desktop();
    machine.gpus = vec![gpu(None)];
    let mut said = |card| {
        machine.card = card;
        let report = report(&machine, &config());
        let finding = finding(&report, "gpu");
        (finding.verdict, finding.found.clone())
    };
    assert_eq!(
        said(card(Some("k.fatbin"), Some(80 * GIB))),
        (
            Verdict::Good,
            "Big 100, 80.0 GiB, by kernels of our own".into()
        )
    );
    assert_eq!(
        said(card(Some("k.fatbin"), None)),
        (
            Verdict::Note,
            "Big 100, not used: k.fatbin: kernels of another build".into()
        )
    );
    assert_eq!(
        said(Card {
            why_not: Some("no NVIDIA driver".into()),
            ..Card::default()
        }),
        (Verdict::Note, "Big 100, not used: no NVIDIA driver".into())
    );
}

#[test]
fn a_gpu_that_the_build_uses_and_the_model_fits_is_good() {
    let mut machine = desktop();
    machine.built_for = vec!["vulkan"];
    // A memory that cannot be seen is not judged.
    for memory in [Some(80 * GIB), None] {
        machine.gpus = vec![gpu(memory)];
        let report = report(&machine, &config());
        assert_eq!(finding(&report, "gpu").verdict, Verdict::Good);
    }
}

#[test]
fn the_context_that_is_advised_fits() {
    let mut machine = desktop();
    for available in [31, 33, 38] {
        machine.memory.available = available * GIB;
        let first = report(&machine, &config());
        assert_eq!(first.fits, Some(false));
        let advice = finding(&first, "model").advice.clone().expect("advice");
        let context = advice.split(['=', ',']).nth(1).expect("a number").trim();
        let context = context.parse::<u64>().expect("a number");
        assert!(context.is_multiple_of(1024));
        let fits = |context| {
            let needs = Needs { context, ..large() };
            judge(&machine, Some(Ok(&needs)), &config()).fits
        };
        assert_eq!(
            (fits(context), fits(context + 1025)),
            (Some(true), Some(false))
        );
    }
}

#[test]
fn a_model_that_is_none_and_no_model_at_all_are_told_apart() {
    let machine = desktop();
    let report = judge(&machine, Some(Err("x.gguf: not a GGUF file")), &config());
    assert_eq!(finding(&report, "model").verdict, Verdict::Bad);
    assert_eq!(
        (report.fits, report.tokens_per_second_at_most),
        (None, None)
    );
    let report = judge(&machine, None, &config());
    assert_eq!(finding(&report, "model").verdict, Verdict::Note);
    assert!(report.is_good());
}

#[test]
fn the_best_file_for_a_memory_leaves_a_quarter_of_it_to_others() {
    let cases = [
        (4, None),
        (6, Some("ling-q3_k_m.gguf")),
        (8, Some("ling-q4_k_m.gguf")),
        (16, Some("ling-q8_0.gguf")),
        (24, Some("kimi-q2_k.gguf")),
        (32, Some("kimi-q3_k_m.gguf")),
        (48, Some("kimi-q4_k_m.gguf")),
        (64, Some("kimi-q6_k.gguf")),
        (128, Some("kimi-q8_0.gguf")),
    ];
    for (memory, wanted) in cases {
        let offer = offer(memory * GIB);
        let needs = offer.as_ref().map(|o| &o.needs);
        let file = needs.and_then(|n| n.path.to_str());
        assert_eq!(file, wanted, "{memory} GiB");
        assert!(needs.is_none_or(|n| n.whole() * 4 <= memory * GIB * 3));
    }
}

#[test]
fn what_is_offered_asks_for_what_the_real_files_were_seen_to() {
    let needs = offer(8 * GIB).expect("an offer").needs;
    // Others' files of that type have 4.82 and 4.92 GB and 0.845 GB a token.
    assert!((4.6e9..5.0e9).contains(&(needs.file as f64)), "{needs:?}");
    assert!((0.75e9..0.9e9).contains(&(needs.read_per_token as f64)));
    assert_eq!(
        (needs.state, needs.per_token),
        (18_874_368 + 1_327_104, 6912)
    );
    let kimi = offer(64 * GIB).expect("an offer").needs;
    assert_eq!(kimi.per_token, 7 * 576 * 2);
}

#[test]
fn who_names_no_model_is_told_which_to_get_and_how() {
    let mut machine = desktop();
    let advice = |machine: &Machine| {
        let report = judge(machine, None, &config());
        finding(&report, "model").advice.clone().expect("advice")
    };
    (machine.memory.total, machine.memory.speed) = (8 * GIB, None);
    assert_eq!(
        advice(&machine),
        "for this memory: Ling-3.0-tiny as q4_k_m (4.4 GiB): hf download inclusionAI/Ling-3.0-tiny \
         --local-dir Ling-3.0-tiny && deltad-quantize convert Ling-3.0-tiny \
         ling-q4_k_m.gguf --type q4_k_m"
    );
    (machine.memory.total, machine.memory.speed) = (64 * GIB, Some(60e9));
    let said = advice(&machine);
    assert!(
        said.contains("moonshotai/Kimi-Linear-48B-A3B-Instruct"),
        "{said}"
    );
    assert!(said.contains("tokens a second"), "{said}");
    // What the control group allows counts, and there may be too little for any.
    machine.memory.limit = Some(16 * GIB);
    assert!(advice(&machine).contains("Ling-3.0-tiny as q8_0"));
    machine.memory.limit = Some(2 * GIB);
    assert!(advice(&machine).contains("make demo"));
}
