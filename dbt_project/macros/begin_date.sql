{#- The day at which a view by window begins when its table does not exist: `begin` if it is given, otherwise
    `begin_days` back. Bounded, because a bare `dbt build` on an empty warehouse makes one batch for each day since. -#}
{%- macro begin_date() -%}
  {%- set days = modules.datetime.timedelta(days=var('begin_days') | int) -%}
  {%- set now = modules.datetime.datetime.now(modules.pytz.utc) -%}
  {{- var('begin', (now - days).strftime('%Y-%m-%d')) -}}
{%- endmacro -%}
