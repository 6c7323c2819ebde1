select
    requests.event_date as traffic_date,
    pages.kind,
    count(*) as requests,
    count_if(requests.is_error)::bigint as errors,
    count(distinct requests.path) as pages,
    count(distinct requests.host_hash) as hosts,
    sum(requests.bytes)::bigint as bytes
from {{ ref('stg_web_requests') }} as requests
inner join {{ ref('dim_pages') }} as pages on requests.path = pages.path
group by requests.event_date, pages.kind
