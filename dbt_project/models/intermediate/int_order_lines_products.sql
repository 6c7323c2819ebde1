select
    lines._offset,
    lines.invoice_no,
    upper(trim(lines.stock_code)) as product_code,
    -- NULL where nothing but spaces was printed.
    nullif(trim(lines.description), '') as product_name,
    service_codes.stock_code is null as is_product,
    case
        when lines.is_cancellation then 'cancellation'
        when lines.is_adjustment then 'adjustment'
        when lines.quantity < 0 then 'correction'
        when lines.unit_price > 0 then 'sale'
        else 'free'
    end as kind,
    lines.quantity,
    lines.unit_price,
    lines.line_amount,
    lines.invoiced_at,
    lines.customer_id,
    lines.country,
    lines.stock_code,
    lines.event_date
from {{ ref('stg_order_lines') }} as lines
left join {{ ref('service_codes') }} as service_codes on upper(trim(lines.stock_code)) = service_codes.stock_code
