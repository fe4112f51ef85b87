UPDATE jobs SET taken = taken + 1 WHERE id = (SELECT id FROM jobs ORDER BY taken LIMIT 1 FOR UPDATE SKIP LOCKED);
