-- What is left of a sale depends on the cancellations before, so they are settled in turns: turn n settles the nth
-- cancellation of each product and customer, in all of them at once. There are as many turns as the most cancellations
-- that one customer has of one product (10 in a year of the real set).
with recursive cancellations as (
    select
        _offset,
        customer_id,
        product_code,
        -quantity as units,
        invoiced_at,
        row_number() over (partition by customer_id, product_code order by invoiced_at, _offset) as turn
    from {{ ref('int_order_lines_products') }}
    where kind = 'cancellation' and quantity < 0 and is_product and customer_id is not null
),

sales as (
    select
        sold._offset,
        sold.customer_id,
        sold.product_code,
        sold.quantity as units,
        sold.invoiced_at
    from {{ ref('int_order_lines_products') }} as sold
    semi join cancellations
        on sold.customer_id = cancellations.customer_id and sold.product_code = cancellations.product_code
    where sold.kind in ('sale', 'free')
),

settled as (
    select
        0::bigint as turn,
        _offset,
        customer_id,
        product_code,
        invoiced_at,
        units as units_left,
        null::bigint as cancellation_offset
    from sales
    union all
    select
        turn,
        _offset,
        customer_id,
        product_code,
        invoiced_at,
        case when is_chosen then units_left - units else units_left end as units_left,
        case when is_chosen then tried_offset end as cancellation_offset
    from (
        select
            *,
            is_possible and row_number() over (
                partition by customer_id, product_code order by is_possible desc, invoiced_at desc, _offset desc
            ) = 1 as is_chosen
        from (
            select
                cancellations.turn,
                settled._offset,
                settled.customer_id,
                settled.product_code,
                settled.invoiced_at,
                settled.units_left,
                cancellations.units,
                cancellations._offset as tried_offset,
                settled.units_left >= cancellations.units
                and (settled.invoiced_at, settled._offset)
                < (cancellations.invoiced_at, cancellations._offset) as is_possible
            from settled
            inner join cancellations
                on
                    settled.customer_id = cancellations.customer_id
                    and settled.product_code = cancellations.product_code
                    and settled.turn + 1 = cancellations.turn
        ) as tried
    ) as ranked
)

select
    cancellation_offset,
    _offset as sale_offset,
    units_left
from settled
where cancellation_offset is not null
