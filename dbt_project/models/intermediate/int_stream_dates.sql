with staged as (
    select
        'order_lines' as stream,
        max(event_date) as newest_event_date
    from {{ ref('stg_order_lines') }}
    union all
    select
        'web_requests' as stream,
        max(event_date) as newest_event_date
    from {{ ref('stg_web_requests') }}
    union all
    select
        'readings' as stream,
        max(event_date) as newest_event_date
    from {{ ref('stg_readings') }}
),

sealed as (
    select
        stream,
        max(event_date) as newest_sealed_date
    from {{ source('operations', 'seals') }}
    group by stream
)

select
    staged.stream,
    sealed.newest_sealed_date,
    staged.newest_event_date,
    coalesce(sealed.newest_sealed_date, staged.newest_event_date) as as_of_date
from staged
left join sealed on staged.stream = sealed.stream
