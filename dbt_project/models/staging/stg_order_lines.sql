select
    event_id,
    invoice_no,
    stock_code,
    description,
    quantity,
    unit_price,
    quantity * unit_price as line_amount,
    invoiced_at,
    customer_id,
    country,
    starts_with(invoice_no, 'C') as is_cancellation,
    starts_with(invoice_no, 'A') as is_adjustment,
    event_date,
    _append_time,
    _partition,
    _offset
from {{ source('events', 'order_lines') }}
where {{ keep_order_line() }}
