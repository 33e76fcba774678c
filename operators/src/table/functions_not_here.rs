//! The functions of Spark that are not here, with the reasons. The test
//! `function_docs` of the command line compares the names with those of Spark.

use crate::table::error::PlanError;

/// Functions that are not here for the same reason.
#[derive(Clone, Copy, Debug)]
pub struct NotHere {
    /// The names in lower case.
    pub names: &'static [&'static str],
    /// Why they are not here.
    pub reason: &'static str,
    /// What to use instead; empty if there is nothing.
    pub instead: &'static str,
}

/// All functions that are not here.
pub const NOT_HERE: &[NotHere] = &[
    NotHere {
        names: &[
            "approx_top_k_accumulate",
            "approx_top_k_combine",
            "approx_top_k_estimate",
            "hll_sketch_agg",
            "hll_sketch_estimate",
            "hll_union",
            "hll_union_agg",
            "kll_merge_agg_bigint",
            "kll_merge_agg_double",
            "kll_merge_agg_float",
            "kll_sketch_agg_bigint",
            "kll_sketch_agg_double",
            "kll_sketch_agg_float",
            "kll_sketch_get_n_bigint",
            "kll_sketch_get_n_double",
            "kll_sketch_get_n_float",
            "kll_sketch_get_quantile_bigint",
            "kll_sketch_get_quantile_double",
            "kll_sketch_get_quantile_float",
            "kll_sketch_get_rank_bigint",
            "kll_sketch_get_rank_double",
            "kll_sketch_get_rank_float",
            "kll_sketch_merge_bigint",
            "kll_sketch_merge_double",
            "kll_sketch_merge_float",
            "kll_sketch_to_string_bigint",
            "kll_sketch_to_string_double",
            "kll_sketch_to_string_float",
            "theta_difference",
            "theta_intersection",
            "theta_intersection_agg",
            "theta_sketch_agg",
            "theta_sketch_estimate",
            "theta_union",
            "theta_union_agg",
            "tuple_difference_double",
            "tuple_difference_integer",
            "tuple_difference_theta_double",
            "tuple_difference_theta_integer",
            "tuple_intersection_agg_double",
            "tuple_intersection_agg_integer",
            "tuple_intersection_double",
            "tuple_intersection_integer",
            "tuple_intersection_theta_double",
            "tuple_intersection_theta_integer",
            "tuple_sketch_agg_double",
            "tuple_sketch_agg_integer",
            "tuple_sketch_estimate_double",
            "tuple_sketch_estimate_integer",
            "tuple_sketch_summary_double",
            "tuple_sketch_summary_integer",
            "tuple_sketch_theta_double",
            "tuple_sketch_theta_integer",
            "tuple_union_agg_double",
            "tuple_union_agg_integer",
            "tuple_union_double",
            "tuple_union_integer",
            "tuple_union_theta_double",
            "tuple_union_theta_integer",
        ],
        reason: "a sketch of the library Apache DataSketches",
        instead: "`approx_count_distinct`, `percentile_approx` and `count_min_sketch` are here",
    },
    NotHere {
        names: &["st_asbinary", "st_geogfromwkb", "st_geomfromwkb", "st_setsrid", "st_srid"],
        reason: "there are no types of geography and geometry",
        instead: "",
    },
    NotHere {
        names: &["java_method", "reflect", "try_reflect"],
        reason: "it calls a method of Java",
        instead: "A user-defined function in Rust does the same",
    },
    NotHere {
        names: &["time"],
        reason: "a call of the type TIME is not a cast",
        instead: "Write CAST(x AS TIME)",
    },
    NotHere {
        names: &["timestamp_nanos", "unix_nanos"],
        reason: "a timestamp has microseconds",
        instead: "`timestamp_micros` and `unix_micros` are here",
    },
    NotHere {
        names: &["current_path", "measure", "python_worker_logs"],
        reason: "it is about catalogs, metric views or workers of Spark, which are not here",
        instead: "",
    },
];

/// The error of a call of a function of Spark that is not here; `None` for any other name. The name
/// is in lower case.
pub fn error(name: &str) -> Option<PlanError> {
    let entry = NOT_HERE.iter().find(|entry| entry.names.contains(&name))?;
    let what = format!("the function `{name}` ({})", entry.reason);
    let mut error = PlanError::not_yet(what);
    if !entry.instead.is_empty() {
        error.fix = entry.instead.to_string();
    }
    Some(error)
}
