{#- The rule by which staging keeps a line of the lake. It keeps every line: what the contract let in, the marts
    count. `staging_filtered` counts what the rule leaves out, so that lake = staging + filtered is checked each day
    whatever the rule becomes. A rule must be true or false, never NULL. -#}
{%- macro keep_order_line() -%}
true
{%- endmacro -%}
