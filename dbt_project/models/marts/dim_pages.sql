select
    path,
    case
        when starts_with(path, '/cgi-bin/') then 'script'
        when regexp_matches(lower(path), '\.(gif|jpe?g|png|xbm|bmp|tiff?)$') then 'image'
        when regexp_matches(lower(path), '\.(mpe?g|avi|mov|wav|au)$') then 'sound or film'
        when regexp_matches(lower(path), '(\.html?|/|/[^./]*)$') then 'page'
        else 'other'
    end as kind,
    min(requested_at) as first_requested_at,
    max(requested_at) as last_requested_at,
    count(*) as requests,
    count_if(is_error)::bigint as errors,
    count(distinct host_hash) as hosts,
    sum(bytes)::bigint as bytes
from {{ ref('stg_web_requests') }}
group by path
