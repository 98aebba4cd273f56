-- query locked_goals(goal_period: str)
-- The locked leaves of a period, as `set_goals` returned its name, with their basis and goal.
-- labels: task_type=report
-- page_size: 500
SELECT * EXCLUDE (goal_period, locked)
FROM goals
WHERE goal_period = $goal_period AND locked
ORDER BY ALL ASC NULLS LAST
