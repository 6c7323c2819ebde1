{{ config(materialized='table', tags=['live']) }}
select
    customer_id,
    last(country order by invoiced_at, _offset) as country,
    min(invoiced_at) as first_invoiced_at,
    first(invoice_no order by _offset) as first_invoice_no,
    max(invoiced_at) as last_invoiced_at,
    last(invoice_no order by _offset) as last_invoice_no,
    count(*) as lines,
    count(distinct invoice_no) as invoices,
    count(*) filter (where quantity < 0) as returned_lines,
    sum(quantity) as units,
    sum(quantity * unit_price) as revenue
from {{ source('events', 'order_lines') }}
where customer_id is not null
group by customer_id
