{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    tags=['live'],
    event_time='invoiced_at',
    batch_size=var('batch_size'),
    begin=begin_date(),
    meta={'live': {'retain': '90 days'}},
) }}
select
    _offset,
    invoiced_at,
    invoice_no,
    stock_code,
    customer_id,
    country,
    quantity,
    unit_price,
    quantity * unit_price as amount
from {{ source('events', 'order_lines') }}
where abs(quantity) >= 1000 or abs(quantity * unit_price) >= 500
