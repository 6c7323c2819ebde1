with orders as (
    select
        customer_id,
        date_trunc('month', ordered_at)::date as month,
        revenue
    from {{ ref('fct_orders') }}
    where customer_id is not null and not is_cancellation
),

firsts as (
    select
        customer_id,
        min(month) as cohort_month
    from orders
    group by customer_id
),

cohorts as (
    select
        cohort_month,
        count(*) as cohort_customers
    from firsts
    group by cohort_month
),

last_month as (
    select greatest(max(orders.month), date_trunc('month', max(dates.as_of_date))::date) as month
    from {{ ref('int_stream_dates') }} as dates
    cross join orders
    where dates.stream = 'order_lines'
),

-- Each cohort has a row for each month up to the last: a month in which none of them ordered shows as 0.
months as (
    select
        cohorts.cohort_month,
        cohorts.cohort_customers,
        unnest(generate_series(cohorts.cohort_month, last_month.month, interval '1 month'))::date as month
    from cohorts
    cross join last_month
),

active as (
    select
        firsts.cohort_month,
        orders.month,
        count(distinct orders.customer_id) as active_customers,
        count(*) as orders,
        sum(orders.revenue) as revenue
    from orders
    inner join firsts on orders.customer_id = firsts.customer_id
    group by firsts.cohort_month, orders.month
)

select
    months.cohort_month,
    months.month,
    date_diff('month', months.cohort_month, months.month) as months_since_first,
    months.cohort_customers,
    coalesce(active.active_customers, 0) as active_customers,
    (coalesce(active.active_customers, 0) / months.cohort_customers)::decimal(7, 6) as retention,
    coalesce(active.orders, 0) as orders,
    coalesce(active.revenue, 0) as revenue
from months
left join active on months.cohort_month = active.cohort_month and months.month = active.month
