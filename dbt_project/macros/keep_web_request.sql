{#- The rule by which staging keeps a request of the lake: every one, as `keep_order_line` keeps every line. -#}
{%- macro keep_web_request() -%}
true
{%- endmacro -%}
