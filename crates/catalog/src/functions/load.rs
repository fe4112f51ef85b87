//! What is asked of the catalog.

// Sources of functions in SQL and PL/pgSQL tell by their words what they may do; those that are kept parsed (BEGIN ATOMIC)
// don't. A view, or a table with policies, stands here with the names of what it calls
// and reads as its words, an aggregate with those of its functions.
pub(super) const LOAD: &str = "
SELECT p.proname::pg_catalog.text,
       n.nspname OPERATOR(pg_catalog.=) 'pg_catalog' AND p.oid OPERATOR(pg_catalog.<) 16384 AS built_in,
       pg_catalog.bool_or(p.provolatile OPERATOR(pg_catalog.=) 'v'),
       pg_catalog.bool_or(NOT l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}')),
       pg_catalog.bool_or(p.prorettype OPERATOR(pg_catalog.=) 'pg_catalog.trigger'::pg_catalog.regtype),
       CASE WHEN pg_catalog.bool_and(p.oid OPERATOR(pg_catalog.>=) 16384 AND (a.aggfnoid IS NOT NULL
                 OR l.lanname OPERATOR(pg_catalog.=) ANY ('{sql,plpgsql}') AND NOT p.prosrc OPERATOR(pg_catalog.=) ''))
            THEN pg_catalog.string_agg(CASE WHEN a.aggfnoid IS NULL THEN p.prosrc ELSE pg_catalog.concat_ws(' ',
                 a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
                 a.aggminvtransfn, a.aggmfinalfn) END, E'\n') END,
       pg_catalog.bool_and(p.provolatile OPERATOR(pg_catalog.=) 'i')
FROM pg_catalog.pg_proc p LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid OPERATOR(pg_catalog.=) p.oid JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
     JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE NOT n.nspname OPERATOR(pg_catalog.=) 'information_schema' GROUP BY 1, 2
UNION ALL
SELECT c.relname::pg_catalog.text, false, false, true, false,
       COALESCE(pg_catalog.string_agg(pg_catalog.concat_ws(' ', f.proname, v.relname, u.proname), ' '), ''), false
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_rewrite r ON r.ev_class OPERATOR(pg_catalog.=) c.oid
     JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
          AND d.objid OPERATOR(pg_catalog.=) r.oid
     LEFT JOIN pg_catalog.pg_proc f ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
          AND f.oid OPERATOR(pg_catalog.=) d.refobjid
     LEFT JOIN pg_catalog.pg_class v ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND v.oid OPERATOR(pg_catalog.=) d.refobjid AND (v.relkind OPERATOR(pg_catalog.=) 'v'
            OR EXISTS (SELECT FROM pg_catalog.pg_policy y WHERE y.polrelid OPERATOR(pg_catalog.=) v.oid))
          AND NOT v.oid OPERATOR(pg_catalog.=) c.oid
     LEFT JOIN pg_catalog.pg_operator o ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass
          AND o.oid OPERATOR(pg_catalog.=) d.refobjid
     LEFT JOIN pg_catalog.pg_proc u ON u.oid OPERATOR(pg_catalog.=) o.oprcode
WHERE c.relkind OPERATOR(pg_catalog.=) 'v' AND c.oid OPERATOR(pg_catalog.>=) 16384 GROUP BY c.oid, c.relname
UNION ALL
SELECT c.relname::pg_catalog.text, false, false, true, false,
       COALESCE(pg_catalog.string_agg(pg_catalog.concat_ws(' ', f.proname, v.relname, u.proname), ' '), ''), false
FROM pg_catalog.pg_policy y JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) y.polrelid
     LEFT JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass
          AND d.objid OPERATOR(pg_catalog.=) y.oid
     LEFT JOIN pg_catalog.pg_proc f ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
          AND f.oid OPERATOR(pg_catalog.=) d.refobjid
     LEFT JOIN pg_catalog.pg_class v ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND v.oid OPERATOR(pg_catalog.=) d.refobjid AND v.oid OPERATOR(pg_catalog.>=) 16384
          AND NOT v.oid OPERATOR(pg_catalog.=) c.oid
     LEFT JOIN pg_catalog.pg_operator o ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass
          AND o.oid OPERATOR(pg_catalog.=) d.refobjid
     LEFT JOIN pg_catalog.pg_proc u ON u.oid OPERATOR(pg_catalog.=) o.oprcode
GROUP BY c.oid, c.relname";

pub(super) const EVENT_TRIGGERS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger
WHERE NOT evtenabled OPERATOR(pg_catalog.=) 'D')";

/// The operators that there are, built-in ones included.
pub(super) const OPERATORS: &str = "SELECT DISTINCT oprname::pg_catalog.text FROM pg_catalog.pg_operator";

/// Functions of the user's that run without being called: those of operators, casts, types, index support, and of columns that are
/// functions of the row. Under which name, and whether any statement may run them.
pub(super) const BEHIND: &str = "
WITH own AS (SELECT oid, proname::pg_catalog.text AS function, pronargs, proargtypes FROM pg_catalog.pg_proc
             WHERE oid OPERATOR(pg_catalog.>=) 16384)
SELECT o.oprname::pg_catalog.text, function,
       o.oprname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{=,<>,<,>,<=,>=,~~,!~~}')
FROM pg_catalog.pg_operator o JOIN own ON own.oid OPERATOR(pg_catalog.=) o.oprcode
UNION
SELECT t.typname::pg_catalog.text, function, NOT k.castcontext OPERATOR(pg_catalog.=) 'e'
FROM pg_catalog.pg_cast k JOIN own ON own.oid OPERATOR(pg_catalog.=) k.castfunc
     JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) k.casttarget
UNION
SELECT t.typname::pg_catalog.text, function, false
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_constraint k ON k.contypid OPERATOR(pg_catalog.=) t.oid
     JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
          AND d.objid OPERATOR(pg_catalog.=) k.oid AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
     JOIN own ON own.oid OPERATOR(pg_catalog.=) d.refobjid
UNION
SELECT t.typname::pg_catalog.text, function, false
FROM pg_catalog.pg_type t CROSS JOIN LATERAL pg_catalog.unnest(ARRAY[t.typinput::pg_catalog.oid, t.typoutput::pg_catalog.oid,
     t.typreceive::pg_catalog.oid, t.typsend::pg_catalog.oid, t.typmodin::pg_catalog.oid]) AS of(oid)
     JOIN own ON own.oid OPERATOR(pg_catalog.=) of.oid
UNION
SELECT function, function, true
FROM pg_catalog.pg_amproc s JOIN own ON own.oid OPERATOR(pg_catalog.=) s.amproc::pg_catalog.oid
UNION
SELECT function, function, false
FROM own JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) own.proargtypes[0]
WHERE own.pronargs OPERATOR(pg_catalog.=) 1 AND t.typtype OPERATOR(pg_catalog.=) 'c'";
