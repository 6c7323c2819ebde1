select
    taken._offset,
    taken.invoice_no,
    taken.invoiced_at as cancelled_at,
    taken.event_date as cancellation_date,
    taken.customer_id,
    taken.country,
    taken.product_code,
    -taken.quantity as units,
    taken.unit_price,
    -taken.line_amount as amount,
    case
        when sold._offset is not null then 'matched'
        when taken.customer_id is null then 'no customer'
        when not taken.is_product then 'no product'
        else 'no sale found'
    end as status,
    sold._offset as sale_offset,
    sold.invoice_no as sale_invoice_no,
    sold.invoiced_at as sold_at,
    sold.quantity as sale_units,
    sold.unit_price as sale_unit_price,
    matched.units_left as sale_units_left,
    date_diff('day', sold.event_date, taken.event_date) as days_since_sale
from {{ ref('int_order_lines_products') }} as taken
left join {{ ref('int_cancellations_matched') }} as matched on taken._offset = matched.cancellation_offset
left join {{ ref('int_order_lines_products') }} as sold on matched.sale_offset = sold._offset
where taken.kind = 'cancellation'
