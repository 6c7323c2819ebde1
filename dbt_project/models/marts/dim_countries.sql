select
    orders.country,
    coalesce(any_value(regions.region), 'Unknown') as region,
    min(orders.ordered_at) filter (where not orders.is_cancellation) as first_order_at,
    max(orders.ordered_at) filter (where not orders.is_cancellation) as last_order_at,
    count(*) filter (where not orders.is_cancellation) as orders,
    count(*) filter (where orders.is_cancellation) as cancellations,
    count(distinct orders.customer_id) as customers,
    sum(orders.lines)::bigint as lines,
    sum(orders.units)::bigint as units,
    sum(orders.revenue) as revenue
from {{ ref('fct_orders') }} as orders
left join {{ ref('regions') }} as regions on orders.country = regions.country
group by orders.country
