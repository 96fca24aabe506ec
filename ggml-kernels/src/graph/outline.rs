//! What a plan consists of: its operators in order, what they take, and which device each was given
//! to. Says; judges nothing.

use std::ffi::CStr;
use std::fmt;

use ggml_sys as sys;

use super::plan::Plan;
use crate::quant::TensorType;

/// A plan's operators in the order in which they are computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// Runs of operators on one device, each handed over to the next by way of the host. One piece on
    /// a device of its own is what its recording of whole passes needs.
    pub pieces: usize,
    pub operators: Vec<Operator>,
}

/// One operator of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Operator {
    /// ggml's name of it; of what an `UNARY` or a `GLU` does, that.
    pub name: String,
    pub result: Operand,
    /// What it takes, in ggml's order.
    pub sources: Vec<Operand>,
    /// The device that it was given to.
    pub device: String,
    /// It computes nothing: the same values under other sizes.
    pub is_view: bool,
}

/// What an operator takes or gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operand {
    pub ty: TensorType,
    /// Fastest first.
    pub ne: [usize; 4],
    /// Strides in bytes.
    pub nb: [usize; 4],
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {:?} of",
            self.name, self.result.ty, self.result.ne
        )?;
        for source in &self.sources {
            write!(f, " {} {:?}", source.ty, source.ne)?;
        }
        Ok(())
    }
}

impl Outline {
    /// Names of operators in order.
    pub fn names(&self) -> Vec<&str> {
        self.operators.iter().map(|o| o.name.as_str()).collect()
    }

    /// Operators that compute, on another device than `device`.
    pub fn elsewhere(&self, device: &str) -> impl Iterator<Item = &Operator> {
        let computing = self.operators.iter().filter(|o| !o.is_view);
        computing.filter(move |o| o.device != device)
    }
}

impl Plan {
    /// What it consists of.
    pub fn outline(&self) -> Outline {
        let (sched, graph) = (self.sched.0.as_ptr(), self.made.graph.as_ptr());
        // SAFETY: a live scheduler and a live graph, which it was given.
        let (pieces, nodes) = unsafe {
            let pieces = sys::ggml_backend_sched_get_n_splits(sched);
            (pieces as usize, sys::ggml_graph_n_nodes(graph))
        };
        // SAFETY: each is below the number of nodes, which live as long as the graph.
        let all = (0..nodes).map(|at| unsafe { &*sys::ggml_graph_node(graph, at) });
        Outline {
            pieces,
            operators: all.map(|raw| self.operator(raw)).collect(),
        }
    }

    fn operator(&self, raw: &sys::ggml_tensor) -> Operator {
        // SAFETY: a live node of a graph that the scheduler was given: it has an operator, whose
        // description is a static string, and a backend, whose name lives as long as that.
        let (name, device) = unsafe {
            let backend = sys::ggml_backend_sched_get_tensor_backend(
                self.sched.0.as_ptr(),
                std::ptr::from_ref(raw).cast_mut(),
            );
            let name = CStr::from_ptr(sys::ggml_op_desc(raw));
            (name, CStr::from_ptr(sys::ggml_backend_name(backend)))
        };
        // SAFETY: sources of a node are null or live as long as it.
        let sources = raw.src.iter().filter_map(|s| unsafe { s.as_ref() });
        Operator {
            name: name.to_string_lossy().into_owned(),
            result: operand(raw),
            sources: sources.map(operand).collect(),
            device: device.to_string_lossy().into_owned(),
            is_view: matches!(
                raw.op,
                sys::GGML_OP_VIEW
                    | sys::GGML_OP_RESHAPE
                    | sys::GGML_OP_PERMUTE
                    | sys::GGML_OP_TRANSPOSE
                    | sys::GGML_OP_NONE
            ),
        }
    }
}

fn operand(raw: &sys::ggml_tensor) -> Operand {
    Operand {
        // Every tensor here was made of a type that we know.
        ty: TensorType::from_id(raw.type_).unwrap_or(TensorType::F32),
        ne: raw.ne.map(|n| n as usize),
        nb: raw.nb,
    }
}
