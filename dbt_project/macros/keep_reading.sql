{#- The rule by which staging keeps a reading of the lake: every one, as `keep_order_line` keeps every line. -#}
{%- macro keep_reading() -%}
true
{%- endmacro -%}
