with customers as (
    select
        customer_id,
        arg_max(country, (ordered_at, invoice_no)) as country,
        count(distinct country) as countries,
        min(ordered_at) filter (where not is_cancellation) as first_order_at,
        arg_min(invoice_no, (ordered_at, invoice_no)) filter (where not is_cancellation) as first_invoice_no,
        max(ordered_at) filter (where not is_cancellation) as last_order_at,
        arg_max(invoice_no, (ordered_at, invoice_no)) filter (where not is_cancellation) as last_invoice_no,
        count(*) filter (where not is_cancellation) as orders,
        count(*) filter (where is_cancellation) as cancellations,
        sum(units)::bigint as units,
        sum(revenue) as revenue
    from {{ ref('fct_orders') }}
    where customer_id is not null
    group by customer_id
),

goods as (
    select
        orders.customer_id,
        sum(lines.line_amount) as lifetime_value
    from {{ ref('int_order_lines_products') }} as lines
    -- By its invoice, as all else here: it has one customer.
    inner join {{ ref('fct_orders') }} as orders on lines.invoice_no = orders.invoice_no
    where orders.customer_id is not null and lines.is_product
    group by orders.customer_id
),

measured as (
    select
        customers.*,
        coalesce(goods.lifetime_value, 0) as lifetime_value,
        -- An order may be of a date that is not sealed yet: none is more recent.
        greatest(date_diff('day', customers.last_order_at::date, dates.as_of_date), 0) as recency_days
    from customers
    left join goods on customers.customer_id = goods.customer_id
    left join {{ ref('int_stream_dates') }} as dates on dates.stream = 'order_lines'
),

-- In fifths of the customers who ordered. Equals have the same score: by recency the higher, so that in a young
-- warehouse, where all ordered lately, nobody has lapsed; else the lower, so that one order is never many. Reckoned in
-- whole numbers, as a fraction's rounding would decide on which side of a border a customer is.
scored as (
    select
        customer_id,
        (5 - 5 * (rank() over (order by recency_days) - 1) // count(*) over ())::integer as recency_score,
        (5 * (rank() over (order by orders) - 1) // count(*) over () + 1)::integer as frequency_score,
        (5 * (rank() over (order by lifetime_value) - 1) // count(*) over () + 1)::integer as monetary_score
    from measured
    where orders > 0
)

select
    measured.customer_id,
    measured.country,
    measured.countries,
    measured.first_order_at,
    measured.first_invoice_no,
    measured.last_order_at,
    measured.last_invoice_no,
    measured.orders,
    measured.cancellations,
    measured.units,
    measured.revenue,
    measured.lifetime_value,
    date_trunc('month', measured.first_order_at)::date as cohort_month,
    case when measured.orders > 0 then measured.recency_days end as recency_days,
    scored.recency_score,
    scored.frequency_score,
    scored.monetary_score,
    case
        when scored.customer_id is null then 'never ordered'
        when scored.recency_score >= 4 and scored.frequency_score >= 4 and scored.monetary_score >= 4 then 'champion'
        when scored.recency_score >= 3 and scored.frequency_score >= 3 then 'loyal'
        when scored.recency_score >= 4 then 'newcomer'
        when scored.recency_score = 3 then 'occasional'
        when scored.frequency_score >= 3 or scored.monetary_score >= 4 then 'at risk'
        else 'lapsed'
    end as segment
from measured
left join scored on measured.customer_id = scored.customer_id
